"""The command line, `skxma`."""

from skxma.cli.main import build_parser, main

__all__ = ["build_parser", "main"]
