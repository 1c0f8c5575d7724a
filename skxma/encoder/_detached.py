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
    has_text : bool, default=True
        True if it knew texts, which decides its place among several encoders.
    text_shapes_metric : bool, default=True
        What it said of its texts.
    """

    def __init__(self, name: str, has_text: bool = True, text_shapes_metric: bool = True) -> None:
        self.name = name
        self.has_text = has_text
        self.text_shapes_metric = text_shapes_metric

    def encode_image(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the weights are not here."""
        raise EncoderMismatchError(
            f"The encoder {self.name} was not saved with the model; give it back with set_params(encoder=...)."
        )

    encode_text = encode_image
