"""An image of what was retrieved for each query, drawn with Pillow so that it needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE, GAP, LINE, LABEL = 96, 12, 15, 150
INK, QUIET, RIGHT, WRONG = "#1a1a1a", "#5f5f5f", "#0072B2", "#D55E00"


@dataclass(frozen=True)
class SheetImage:
    """A support image: its image, label, and affinity to the query in both modalities."""

    image: Image.Image
    label: str
    image_affinity: float
    text_affinity: float


@dataclass(frozen=True)
class SheetRow:
    """A query with what was retrieved for it and what was predicted."""

    image: Image.Image
    label: str
    predicted: str
    probability: float
    retrieved: Sequence[SheetImage]


def retrieval_sheet(answers: Sequence[SheetRow], title: str) -> Image.Image:
    """Draw one row a query: the query, its prediction, and the support images retrieved with both affinities.

    Parameters
    ----------
    answers : sequence of SheetRow
    title : str

    Returns
    -------
    sheet : PIL.Image.Image
        RGB. Labels of the right class are blue, of others orange, and say so by a sign as well (= and x).
    """
    columns = max(len(answer.retrieved) for answer in answers)
    row = TILE + 3 * LINE + 2 * GAP
    sheet = Image.new(
        "RGB", (3 * GAP + TILE + LABEL + columns * (LABEL + GAP), 3 * GAP + LINE + row * len(answers)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font=_font(15))
    for i, answer in enumerate(answers):
        _draw_row(sheet, draw, 3 * GAP + LINE + i * row, answer)
    return sheet


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int, answer: SheetRow) -> None:
    sheet.paste(_tile(answer.image), (GAP, top))
    _write(draw, GAP, top + TILE, [(f"query: {answer.label}", INK)])
    left = 2 * GAP + TILE
    right = answer.predicted == answer.label
    lines = [("predicted", QUIET), (_signed(answer.predicted, right), RIGHT if right else WRONG)]
    _write(draw, left, top + TILE // 3, [*lines, (f"p = {answer.probability:.2f}", QUIET)])
    for j, found in enumerate(answer.retrieved):
        x = left + LABEL + j * (LABEL + GAP)
        same = found.label == answer.label
        sheet.paste(_tile(found.image), (x, top))
        numbers = f"image {found.image_affinity:+.2f}  text {found.text_affinity:+.2f}"
        _write(draw, x, top + TILE, [(_signed(found.label, same), RIGHT if same else WRONG), (numbers, QUIET)])


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[tuple[str, str]]) -> None:
    for k, (text, color) in enumerate(lines):
        draw.text((x, y + 3 + k * LINE), _fit(draw, text), color, font=_font(12))


def _fit(draw: ImageDraw.ImageDraw, text: str) -> str:
    """The text, shortened where it would run into the next column."""
    while draw.textlength(text, font=_font(12)) > LABEL and len(text) > 1:
        text = text[:-2] + "…"
    return text


def _signed(label: str, right: bool) -> str:
    return f"{'=' if right else 'x'} {label}"


def _tile(image: Image.Image) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "white")
    small = image.convert("RGB")
    scale = TILE / max(small.size)
    small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return tile


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
