"""Any PIL image as a viewer shows it: upright, opaque, RGB."""

import numpy as np
from PIL import Image

from skxma.errors import ImageError

_MAX_16_BIT = 65535
_ORIENTATION = 0x0112
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a PIL image upright and convert it to RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode but those whose range is unknown ("F", and "I" that comes from no file).

    Returns
    -------
    image : PIL.Image.Image of mode RGB
        A copy.

    Raises
    ------
    ImageError
        If the mode has no known range.
    """
    from_file = image.format is not None
    upright = _turn_upright(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _from_wide(upright, from_file).convert("RGB")
    if upright.mode in _WITH_ALPHA or "transparency" in upright.info:
        # "La" is premultiplied, and reaches RGBA only by way of its plain form
        upright = upright.convert("LA" if upright.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB")
    return upright.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation.

    Unlike ImageOps.exif_transpose it rewrites no EXIF, which would fail where that is damaged.
    """
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a picture is worth more than what its camera noted of it
        return image
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def _from_wide(image: Image.Image, from_file: bool) -> Image.Image:
    values = np.asarray(image)
    # older Pillows open 16-bit PNG as "I"; an "I" made in memory has no known range
    if image.mode == "F" or (image.mode == "I" and not from_file):
        raise ImageError(f"an image of mode {image.mode!r}, whose range is unknown; convert it to 8 bits first")
    if values.size and (values.min() < 0 or values.max() > _MAX_16_BIT):
        raise ImageError("an image of 32-bit integers beyond 0 to 65535; convert it to 8 bits first")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8))
