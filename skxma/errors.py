"""The errors of skxma: each also is the builtin that a caller would expect to catch."""

__all__ = [
    "EncoderMismatchError",
    "EncoderNotFoundError",
    "ExportError",
    "ImageError",
    "ModelFileError",
    "OutOfMemoryError",
    "SkxmaError",
    "WeightsError",
]


class SkxmaError(Exception):
    """Base of every error that skxma raises on its own account."""


class ImageError(SkxmaError, ValueError):
    """An item that was given as an image can't be read as one; the message names it and the reason.

    Parameters
    ----------
    message : str
        What is wrong, with which item, and what was expected.
    index : int, optional
        The item's position in what the caller gave.
    path : str, optional
        The item's path, where it has one.
    reason : str, optional
        The message without the item's position and path.
    """

    def __init__(
        self, message: str, *, index: int | None = None, path: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.path = path
        self.reason = message if reason is None else reason


class EncoderNotFoundError(SkxmaError, ValueError):
    """The encoder's name is not one that open_clip, a hub or the bundle knows."""


class WeightsError(SkxmaError, OSError):
    """The encoder is known, but its weights could not be read or fetched."""


class EncoderMismatchError(SkxmaError, ValueError):
    """Embeddings or weights come from another encoder than the one the model was fitted with."""


class OutOfMemoryError(SkxmaError, RuntimeError):
    """A device has too little memory for a batch that cannot be made smaller, for a fit or for its keys."""


class ModelFileError(SkxmaError, ValueError):
    """A model that a model file cannot hold, or a file that is none, is damaged or needs a later release."""


class ExportError(SkxmaError, RuntimeError):
    """A classifier that cannot be put into a graph, or a graph that does not answer as the classifier does."""


class MissingDependencyError(SkxmaError, ImportError):
    """An optional package is needed and cannot be imported; the message names what needs it and how to install it."""
