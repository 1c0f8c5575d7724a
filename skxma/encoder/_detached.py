"""Placeholder for an encoder object that was not saved with its model."""

from __future__ import annotations

from typing import Any

from skxma.errors import EncoderMismatchError


class DetachedEncoder:
    """Stands in a loaded model for an encoder object that was not saved with it.

    Parameters
    ----------
    name : str
        What the encoder was.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def encode_image(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the weights are not here."""
        raise EncoderMismatchError(
            f"The encoder {self.name} was not saved with the model; give it back with set_params(encoder=...)."
        )

    encode_text = encode_image
