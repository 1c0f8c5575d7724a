"""PNG without its notes: color profile and texts, which decide no pixel here."""

from __future__ import annotations

_MAGIC = b"\x89PNG\r\n\x1a\n"
_NOTES = {b"iCCP", b"zTXt", b"iTXt", b"tEXt"}
_AROUND_DATA = 12


def without_notes(content: bytes) -> bytes | None:
    """Leave the color profile and the texts out of a PNG file; nothing is decompressed.

    Pillow refuses a PNG whose profile or texts are larger than a limit, though it reads a JPEG with the same profile.

    Parameters
    ----------
    content : bytes
        A file's content.

    Returns
    -------
    content : bytes or None
        None for what is no PNG.
    """
    if not content.startswith(_MAGIC):
        return None
    parts, start = [_MAGIC], len(_MAGIC)
    while start < len(content):
        end = start + _AROUND_DATA + int.from_bytes(content[start : start + 4], "big")
        if content[start + 4 : start + 8] not in _NOTES:
            parts.append(content[start:end])
        start = end
    return b"".join(parts)
