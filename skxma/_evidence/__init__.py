"""The evidence that a fit learns: two kinds, what both report, retrieval of keys, and images without labels."""
