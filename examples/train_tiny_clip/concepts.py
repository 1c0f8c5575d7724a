"""Which image of which set shows which concept, and which concepts training never sees."""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sources import SETS, package, read_json

HELD_OUT_SET = "noto-v1"
LARGE_SETS = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "noto-v1")
N_HELD_OUT = 150
N_SAMPLE = 40
# emojibase's groups of things that one can point at: animals and plants, food, places, activities, objects
THINGS = frozenset({3, 4, 5, 6, 7})
_FLAGS = 9
_SHORTCODES = ("cldr", "github", "iamcal", "emojibase", "emojibase-legacy", "joypixels")


@dataclass
class Concept:
    """One emoji: its name, its search words and the icon that each set draws it with."""

    hexcode: str
    label: str
    tags: list[str]
    group: int
    icons: dict[str, str] = field(default_factory=dict)


def slug(name: str) -> str:
    """Write a name as Iconify does: lower case, plain letters, hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = plain.lower().replace("flag: ", "flag-for-").replace("'", "").replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def load_concepts(work: Path) -> list[Concept]:
    """Join emojibase's names to the icons of every set, in emojibase's order."""
    english = package("emojibase", work) / "en"
    concepts = [
        Concept(e["hexcode"], e["label"].lower(), [t.lower() for t in e.get("tags", [])], e["group"])
        for e in read_json(english / "data.json")
        if "group" in e
    ]
    shortcodes = [read_json(english / "shortcodes" / f"{name}.json") for name in _SHORTCODES]
    for name in SETS:
        folder = package(name, work)
        _join(concepts, name, read_json(folder / "icons.json"), read_json(folder / "chars.json"), shortcodes)
    return [concept for concept in concepts if concept.icons]


def _join(concepts: list[Concept], name: str, icons: dict, chars: dict, shortcodes: list[dict]) -> None:
    """Give each concept its icon in one set: by code point where the set tells it, else by ever looser names."""
    flat = name == "fxemoji"  # its slugs have no hyphens
    known = {icon: icon for icon in icons["icons"]}
    known |= {alias: entry["parent"] for alias, entry in icons.get("aliases", {}).items() if entry["parent"] in known}
    claimed: set[str] = set()
    for level in range(3 + len(shortcodes)):
        for concept in concepts:
            if name in concept.icons:
                continue
            for candidate in _candidates(concept, level, chars, shortcodes):
                icon = known.get(candidate.replace("-", "") if flat else candidate)
                # an icon belongs to one concept: the one that names it most directly
                if icon is not None and icon not in claimed:
                    concept.icons[name] = icon
                    claimed.add(icon)
                    break


def _candidates(concept: Concept, level: int, chars: dict, shortcodes: list[dict]) -> list[str]:
    code = concept.hexcode.lower()
    if level == 0:
        return [chars[c] for c in (code, code.replace("-fe0f", ""), f"{code}-fe0f") if c in chars]
    if level == 1:
        return [slug(concept.label)]
    if level == 2:
        points = [p for p in code.split("-") if p != "fe0f"]
        return [slug(unicodedata.name(chr(int(points[0], 16)), ""))] if len(points) == 1 else []
    codes = shortcodes[level - 3].get(concept.hexcode, [])
    return [slug(c.replace("_", " ")) for c in ([codes] if isinstance(codes, str) else codes)]


def draw_held_out(concepts: list[Concept], seed: int = 0) -> list[str]:
    """Draw the labels that training never sees, among those that all large sets have; in emojibase's order."""
    eligible = [c.label for c in concepts if all(s in c.icons for s in LARGE_SETS) and _stands_alone(c)]
    drawn = set(np.random.default_rng(seed).choice(eligible, N_HELD_OUT, replace=False).tolist())
    return [label for label in eligible if label in drawn]


def draw_sample(concepts: list[Concept], held_out: list[str], seed: int = 0) -> list[str]:
    """Draw the bundled concepts: held-out things whose name is one or two plain words; never by accuracy."""
    group = {c.label: c.group for c in concepts}
    things = [name for name in held_out if group[name] in THINGS and re.fullmatch(r"[a-z]+( [a-z]+)?", name)]
    return sorted(np.random.default_rng(seed).choice(things, N_SAMPLE, replace=False).tolist())


def _stands_alone(concept: Concept) -> bool:
    """Leave out families of near-copies: flags, keycaps, clock faces, the man's and woman's form of one image."""
    clock = concept.label.endswith(("o’clock", "-thirty"))
    gendered = re.match(r"(man|woman|men|women|person|people)\b", concept.label) is not None
    return not (concept.group == _FLAGS or ":" in concept.label or "keycap" in concept.label or clock or gendered)
