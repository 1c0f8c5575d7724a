"""The kind of a file that Pillow does not read, by its first bytes."""

from __future__ import annotations

N_FIRST = 512
"""Bytes of the start that are enough to tell."""

_AGAIN = "download the image itself again"
_OPEN = "take the images out of it"
# the first that fits counts; text is compared in lower case, behind spaces
_STARTS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch what it stands for: git lfs pull"),
    (b"<!doctype html", "a web page", _AGAIN),
    (b"<html", "a web page", _AGAIN),
    (b"<svg", "a drawing (SVG)", "render it as PNG"),
    (b"<?xml", "XML, such as a drawing (SVG) or a server's error", f"render a drawing as PNG, or {_AGAIN}"),
    (b"{", "JSON, such as a server's error", _AGAIN),
    (b"%pdf", "a PDF", _OPEN),
    (b"pk\x03\x04", "a zip archive", _OPEN),
    (b"\x1f\x8b", "a gzip archive", _OPEN),
    (b"\xff\x0a", "JPEG XL", "convert it to JPEG or PNG"),
    (b"\0\0\0\x0cjxl ", "JPEG XL", "convert it to JPEG or PNG"),
)
# brands in the first box of an ISO media file; most HEIC files name a general brand (mif1) first
_BRANDS = (
    (
        (b"avif", b"avis"),
        "AVIF, damaged or of a kind that this Pillow lacks",
        "convert it to JPEG or PNG, or upgrade Pillow",
    ),
    (
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        "HEIC",
        "convert it to JPEG or PNG, or in Python install pillow-heif and call pillow_heif.register_heif_opener() first",
    ),
)


def kind_by_start(start: bytes) -> tuple[str, str] | None:
    """Say what a file is that is no image, and what to do.

    Parameters
    ----------
    start : bytes
        Its first `N_FIRST` bytes, or all.

    Returns
    -------
    kind, remedy : str
        In words; None for a file of none of the kinds that are known.
    """
    if start[4:8] == b"ftyp":
        box = start[8 : int.from_bytes(start[:4], "big")]
        brands = {box[i : i + 4] for i in range(0, len(box), 4)}
        found = ((kind, remedy) for known, kind, remedy in _BRANDS if brands.intersection(known))
        return next(found, ("a video (MP4)", "take a frame out of it"))
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next(((kind, remedy) for magic, kind, remedy in _STARTS if text.startswith(magic)), None)
