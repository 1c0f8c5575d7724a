"""Indices over cache keys: exact, or clustered with bounds."""
