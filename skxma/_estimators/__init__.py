"""The estimators: they orchestrate, the mathematics lives below."""
