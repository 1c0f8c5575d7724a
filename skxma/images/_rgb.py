"""Any PIL image as a viewer shows it: upright, opaque, RGB."""

from typing import TypeAlias

import numpy as np
from PIL import Image

from skxma.errors import ImageError

Rescaling: TypeAlias = str | int

USED_RANGE = "used_range_16bit"
GRAY, COLOR = "gray", "color"
_MAX_16_BIT = 65535
# images of 14 bits and less
_WIDE = 2**14
_SCALE = (
    "scale it to 8 bits first: x = numpy.asarray(image); "
    "PIL.Image.fromarray(numpy.uint8(numpy.round(255.0 * (x - x.min()) / max(x.max() - x.min(), 1e-9))))"
)
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


def to_rgb(image: Image.Image, rescale_16bit: Rescaling = "dtype") -> Image.Image:
    """Turn a PIL image upright and convert it to RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode but those whose range is unknown ("F", and "I" that comes from no file).
    rescale_16bit : {"dtype", "range"} or int, default="dtype"
        What becomes white in an image of 16-bit gray values: 65535, its own brightest value (and its darkest black),
        or the largest value of that many bits.

    Returns
    -------
    image : PIL.Image.Image of mode RGB
        A copy. Where it had 16 bits, ``info`` says under `USED_RANGE` from which to which value it used them.

    Raises
    ------
    ImageError
        If the mode has no known range, or a value does not fit into the bits that were named.
    """
    refuse_unknown_range(image, from_file=image.format is not None)
    # Pillow keeps the upper 8 of 16 bits of a color; what the file holds is forgotten once it is decoded
    of_16_bits = any(";16" in str(part) for part in getattr(image, "tile", ()))
    upright = _turn_upright(image)
    if upright.mode.startswith("I"):
        return _from_wide(upright, rescale_16bit)
    if upright.mode in _WITH_ALPHA or "transparency" in upright.info:
        # "La" is premultiplied, and reaches RGBA only by way of its plain form
        upright = upright.convert("LA" if upright.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        rgb = Image.alpha_composite(white, upright).convert("RGB")
    else:
        rgb = upright.convert("RGB")
    rgb.info.pop(USED_RANGE, None)
    if of_16_bits:
        extrema = [band.getextrema() for band in upright.split()[:3]]
        rgb.info[USED_RANGE] = (257 * min(low for low, _ in extrema), 257 * max(high for _, high in extrema), COLOR)
    return rgb


def refuse_unknown_range(image: Image.Image, *, from_file: bool) -> None:
    """Refuse what can't be brought to 8 bits without knowing more; nothing is decoded.

    Parameters
    ----------
    image : PIL.Image.Image
    from_file : bool
        Whether it was opened from a file: older Pillows open 16-bit PNG as "I", but an "I" made in memory could hold
        anything.

    Raises
    ------
    ImageError
        Says how to scale it.
    """
    if image.mode == "F" or (image.mode == "I" and not from_file):
        raise ImageError(f"an image of mode {image.mode!r}, whose range is unknown; {_SCALE}")


def describe_narrow_range(image: Image.Image) -> str | None:
    """Say of an image of 16 bits that it used a small part of them, so that it is nearly black or flat in 8 bits.

    Parameters
    ----------
    image : PIL.Image.Image
        From `to_rgb`.

    Returns
    -------
    words : str or None
        Its values; None where it had 8 bits, used more of them, or has one value only.
    """
    low, high, kind = image.info.get(USED_RANGE, (0, 0, GRAY))
    return f"{kind} values from {low} to {high}" if 0 < high - low < _WIDE else None


def _turn_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation.

    Unlike ImageOps.exif_transpose it rewrites no EXIF, which would fail where that is damaged.
    """
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # an image is worth more than what its camera noted of it
        return image
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def _from_wide(image: Image.Image, rescale_16bit: Rescaling) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > _MAX_16_BIT):
        raise ImageError(f"an image of 32-bit integers beyond 0 to 65535; {_SCALE}")
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if rescale_16bit == "dtype" or (rescale_16bit == "range" and low == high):
        scaled = values / 257.0
    elif rescale_16bit == "range":
        scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    else:
        most = 2 ** int(rescale_16bit) - 1
        if high > most:
            raise ImageError(f"a value of {high}, beyond the {rescale_16bit} bits of rescale_16bit={rescale_16bit}")
        scaled = values * (255 / most)
    rgb = Image.fromarray(np.round(scaled).astype(np.uint8)).convert("RGB")
    rgb.info[USED_RANGE] = (low, high, GRAY)
    return rgb
