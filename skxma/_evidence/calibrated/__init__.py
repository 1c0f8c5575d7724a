"""Leave-one-out-calibrated evidence, the default form."""
