"""Bundled data: the encoder "tiny" and a list of everyday words."""
