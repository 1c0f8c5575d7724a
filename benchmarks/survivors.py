"""Why some mutants survive: each that `benchmarks/mutation.py` finds alive is to have a reason here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Reason:
    """Why changes of one line, by operators of one kind, change no answer."""

    module: str
    text: str
    operator: str
    why: str


REASONS: list[Reason] = [
    Reason(
        "functional", "HELD_OUT = -1e9", "NumberReplacer", "a billion and one retrieves as much as a billion: nothing"
    ),
    Reason("functional", "@staticmethod", "RemoveDecorator", "torch calls both on the class, never on an object"),
    Reason("functional", "gradients[0]", "NumberReplacer", "there is one gradient: the first is the last"),
    Reason(
        "functional",
        'contributions.device.type == "cpu"',
        "ReplaceComparisonOperator|AddNot",
        "both ways give the same sums; which one decides how fast, and in what order on a GPU",
    ),
    Reason("calibration", "@staticmethod", "RemoveDecorator", "torch calls both on the class, never on an object"),
]


def unexplained(results: dict[str, Any]) -> list[str]:
    """Survivors without a reason: file, line, operator, and the line itself."""
    found = []
    for module, held in results.items():
        lines = (ROOT / "skxma" / f"{module}.py").read_text().splitlines()
        for key, (outcome, number) in held["mutants"].items():
            text = lines[number - 1] if number <= len(lines) else ""
            if outcome == "survived" and not any(explains(reason, module, key, text) for reason in REASONS):
                found.append(f"skxma/{module}.py:{number} {key} in: {text.strip()}")
    return found


def explains(reason: Reason, module: str, key: str, text: str) -> bool:
    """Whether a reason is that of a mutant of some line."""
    return reason.module == module and reason.text in text and re.match(reason.operator, key) is not None
