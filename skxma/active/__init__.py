"""Which images to label next."""

from skxma.active._suggest import suggest

__all__ = ["suggest"]
