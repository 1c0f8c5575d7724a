"""Model files: arrays and JSON."""
