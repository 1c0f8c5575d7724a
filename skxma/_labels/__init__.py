"""Labels, class names and text features: what a caller gave as one table of classes."""
