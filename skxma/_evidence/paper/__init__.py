"""Evidence in the paper's form, trained by AdamW."""
