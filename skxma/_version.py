"""The version of skxma, in one place: the build, the documentation and model files read it here."""

__version__ = "0.1.0"
