"""Why some mutants survive: each that `benchmarks/proofs/mutation.py` finds alive is to have a reason here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reason:
    """Why changes of one line, by operators of one kind, change no answer."""

    module: str
    text: str
    operator: str
    why: str


COMPARISON = "ReplaceComparisonOperator"
OF_CLASS = "torch calls both on the class, never on an object"
ONE_GRADIENT = "there is one gradient: the first is the last"
REASONS: list[Reason] = [
    Reason("functional", "HELD_OUT = -1e9", "NumberReplacer", "one more than a billion retrieves nothing either"),
    Reason("functional", "@staticmethod", "RemoveDecorator", OF_CLASS),
    Reason("functional", "gradients[0]", "NumberReplacer", ONE_GRADIENT),
    Reason(
        "functional",
        'contributions.device.type == "cpu"',
        f"{COMPARISON}|AddNot",
        "both ways give the same sums; which one decides how fast, and in what order on a GPU",
    ),
    Reason("functional", "(image_affinity > HELD_OUT)", f"{COMPARISON}_Gt_NotEq", "no affinity is below it"),
    Reason("functional", "== labels[None, :]) &", "ReplaceBinaryOperator_BitAnd_Mul", "the same for truth values"),
    Reason("functional", "gather(1, labels[:, None])[:, 0]", "NumberReplacer", "of one column the first is the last"),
    Reason("functional", "if noise_rate <= 0", f"{COMPARISON}_LtE_Eq", "no rate is negative"),
    Reason("caches", 'name != "_ready"', f"{COMPARISON}_NotEq_(IsNot|Gt)", "all other names come after, none is twice"),
    Reason("caches", "weights > 0", f"{COMPARISON}_Gt_NotEq", "no weight is negative"),
    Reason(
        "caches",
        "if len(kept) == len(labels)",
        f"{COMPARISON}_Eq_(Gt|GtE|Is):",
        "all rows, copied or not, are the same rows",
    ),
    Reason("caches", "rows.itemsize * rows.shape[1])))[:, 0]", "NumberReplacer", "of one column the first is the last"),
    Reason("caches", "copy=False", "ReplaceFalseWithTrue", "rows that were chosen are a copy already"),
    Reason("caches", "like(x, self.weight)[0]", "NumberReplacer", "of one tensor the first is the last"),
    Reason("caches", "like(x, self.bias)[0]", "NumberReplacer", "of one tensor the first is the last"),
    Reason("calibration", "@staticmethod", "RemoveDecorator", OF_CLASS),
    Reason("calibration", "@property", "RemoveDecorator", "of a protocol: it describes types, and does not run"),
    Reason("calibration", "TOLERANCES = ", "NumberReplacer", "where the search stops, in digits that do not count"),
    Reason("calibration", "DOUBLE_ENTRIES", ".*", "from which size on floats are single: the same to seven digits"),
    Reason("calibration", "log_softmax(theta[", "NumberReplacer", "of one dimension the first is the last"),
    Reason("calibration", "if self.n_text == 0", f"{COMPARISON}_Eq_LtE", "there are no fewer than no texts"),
    Reason("calibration", "counts[counts > 0]", f"{COMPARISON}|NumberReplacer", "classes without any weigh nothing"),
    Reason("calibration", "np.where(n > 1, ", f"{COMPARISON}|NumberReplacer", "a lone sample's factor is 1 either way"),
    Reason("calibration", "gradients[0]", "NumberReplacer", ONE_GRADIENT),
    Reason(
        "calibration",
        "torch.zeros_like(theta[-1])",
        "NumberReplacer:11[45]|Replace(Unary|Delete).*:7",
        "zeros like one entry are zeros like any",
    ),
    Reason("calibration", "if self.n_text else 0.0", "NumberReplacer:6[45]", "without text the share is not looked at"),
    Reason(
        "calibration", "np.log(noise_rate + F.EPS)", "ReplaceBinaryOperator_Add_Sub", "it stands there for a rate of 0"
    ),
    Reason("calibration", "solution[-1] > SUSPICIOUS", f"{COMPARISON}_Gt_GtE", "no rate is a third to the last digit"),
    Reason(
        "calibration", "other < least", f"{COMPARISON}_Lt_LtE", "of two solutions as good as each other either will do"
    ),
    Reason("calibration", "if len(relative) != 1", f"{COMPARISON}_NotEq_IsNot", "small integers are one object"),
    Reason("calibration", "requires_grad: bool = False", "ReplaceFalseWithTrue", "the other call is under no_grad"),
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
