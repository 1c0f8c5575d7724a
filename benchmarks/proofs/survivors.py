"""Reasons for mutants that survive: each that `benchmarks/proofs/mutation.py` finds alive must have one here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reason:
    """Reason why changes of one line, by operators of one kind, change no answer, in a module or a package."""

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
    Reason(
        "caches",
        'name != "_kept_scorer"',
        f"{COMPARISON}_NotEq_(IsNot|Gt)",
        "all other names come after, none is twice",
    ),
    Reason("caches", "weights > 0", f"{COMPARISON}_Gt_NotEq", "no weight is negative"),
    Reason(
        "caches",
        "if len(kept) == len(labels)",
        f"{COMPARISON}_Eq_(Gt|GtE|Is):",
        "all rows, copied or not, are the same rows",
    ),
    Reason("caches", "rows.itemsize * rows.shape[1])))[:, 0]", "NumberReplacer", "of one column the first is the last"),
    Reason("caches", "copy=False", "ReplaceFalseWithTrue", "rows that were chosen are a copy already"),
    Reason("caches", "to_tensors(self.weight, like=like)[0]", "NumberReplacer", "of one tensor the first is the last"),
    Reason("_evidence.calibrated.fusion", "@staticmethod", "RemoveDecorator", OF_CLASS),
    Reason("_evidence.fitted", "@property", "RemoveDecorator", "of a protocol: it describes types, and does not run"),
    Reason(
        "_evidence.calibrated.fusion",
        "config.max_double_scores",
        ".*",
        "from which size on floats are single: the same to seven digits",
    ),
    Reason(
        "_evidence.calibrated.fusion", "log_softmax(theta[", "NumberReplacer", "of one dimension the first is the last"
    ),
    Reason(
        "_evidence.calibrated.fusion", "if self.n_text == 0", f"{COMPARISON}_Eq_LtE", "there are no fewer than no texts"
    ),
    Reason(
        "_evidence.calibrated.fusion",
        "counts[counts > 0]",
        f"{COMPARISON}|NumberReplacer",
        "classes without any weigh nothing",
    ),
    Reason(
        "_evidence.calibrated.fusion",
        "np.where(n > 1, ",
        f"{COMPARISON}|NumberReplacer",
        "a lone sample's factor is 1 either way",
    ),
    Reason("_evidence.calibrated.fusion", "gradients[0]", "NumberReplacer", ONE_GRADIENT),
    Reason(
        "_evidence.calibrated.fusion",
        "if self.n_text else 0.0",
        "NumberReplacer:3[01]",
        "without text the share is not looked at",
    ),
    Reason(
        "_evidence.calibrated.fusion",
        "np.log(noise_rate + F.EPS)",
        "ReplaceBinaryOperator_Add_Sub",
        "it stands there for a rate of 0",
    ),
    Reason(
        "_evidence.calibrated.fusion",
        "solution[-1] > limit",
        f"{COMPARISON}_Gt_GtE",
        "no rate is a third to the last digit",
    ),
    Reason(
        "_evidence.calibrated.fusion",
        "other < least",
        f"{COMPARISON}_Lt_LtE",
        "of two solutions as good as each other either will do",
    ),
    Reason("_evidence.calibrated", "frozen=True", "ReplaceTrueWithFalse", "nothing writes to it"),
    Reason("_evidence.calibrated", "strict=True", "ReplaceTrueWithFalse", "they are of one length always"),
    Reason(
        "_evidence.calibrated.averaging",
        "< config.metrics_per_root",
        f"{COMPARISON}_Lt_(IsNot|NotEq)",
        "counted up by one, the number meets the limit before it passes it",
    ),
    Reason(
        "_evidence.calibrated.averaging",
        ">= config.min_averaging_weight",
        f"{COMPARISON}_GtE_Gt",
        "no weight is the limit to the last digit",
    ),
    Reason(
        "_evidence.calibrated.cross_fit",
        "len(classes) == self.logits.shape[2]",
        COMPARISON,
        "all classes, picked or not, have the same logits",
    ),
    Reason(
        "_evidence.calibrated.cross_fit", "in metrics[0].left_out.parts", "NumberReplacer", "all metrics have one shape"
    ),
    Reason("_evidence.calibrated.moderation", ") ** 2, 0)", "NumberReplacer", "of one dimension the first is the last"),
    Reason(
        "_evidence.calibrated.moderation",
        "torch.where(zero <= 0, 1.0, 0.0)",
        "NumberReplacer",
        "the shares are divided by their sum",
    ),
    Reason(
        "_evidence.calibrated.newton",
        "blocks.LIKELIHOOD_ENTRIES",
        "ReplaceBinaryOperator|NumberReplacer",
        "how many samples are scored at once changes no sum",
    ),
    Reason(
        "_evidence.calibrated.newton",
        "per_sample = ",
        "ReplaceBinaryOperator|NumberReplacer",
        "how many samples are scored at once changes no sum",
    ),
    Reason("_evidence.calibrated.newton", "if len(several) == 1:", "NumberReplacer", "one part joined is a copy of it"),
    Reason(
        "_evidence.calibrated.moderation",
        "zero_shot[None], ridge, rest)[0]",
        "NumberReplacer:53",
        "there is one factor: the first is the last",
    ),
    Reason(
        "_evidence.calibrated.newton",
        "coarse_samples",
        f"ReplaceBinaryOperator|{COMPARISON}|NumberReplacer",
        "where the minimization starts changes no minimum",
    ),
    Reason(
        "_evidence.calibrated.newton",
        ".any(0))[:, 0]",
        f"NumberReplacer:169|{COMPARISON}_Gt_GtE",
        "of one column the first is the last; a fold that changes nothing needs no step",
    ),
    Reason(
        "_evidence.calibrated.newton", "relative_weights(theta[:, 0,", "NumberReplacer", "there is one set of weights"
    ),
    Reason(
        "_evidence.calibrated.newton",
        "dampings / 10",
        "ReplaceBinaryOperator|NumberReplacer",
        "how fast the damping falls decides how many steps there are, not where they end",
    ),
    Reason(
        "_evidence.calibrated.newton",
        ".clamp(-2, 2)",
        "NumberReplacer|ReplaceUnaryOperator",
        "how far a step may go decides how many there are, not where they end",
    ),
    Reason(
        "_evidence.calibrated.experts",
        "blocks.SCORE_ENTRIES",
        "ReplaceBinaryOperator",
        "how many samples are scored at once changes no score",
    ),
    Reason(
        "_evidence.calibrated.experts",
        "entries = len(support.keys)",
        "ReplaceBinaryOperator",
        "how many samples are scored at once changes no score",
    ),
    Reason(
        "_evidence.calibrated.experts",
        "if len(seen) > 1 else 0.0",
        "NumberReplacer",
        "whatever is no deviation becomes 1",
    ),
    Reason(
        "_evidence.calibrated.experts",
        "if len(x) < x.shape[1]",
        f"{COMPARISON}|NumberReplacer|AddNot",
        "both forms give the same matrix; which one decides how fast",
    ),
    Reason(
        "_evidence.calibrated.text_only",
        "minimize_lbfgs(objective, [0.0, 0.0,",
        "NumberReplacer",
        "where the minimization starts changes no minimum",
    ),
]


def path_of(module: str) -> Path:
    """The file of a module of skxma, given by its dotted name."""
    return ROOT / "skxma" / f"{module.replace('.', '/')}.py"


def digest(path: Path) -> str:
    """A short hash that tells one state of a file from another."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def unexplained(results: dict[str, Any]) -> list[str]:
    """List survivors without a reason: file, line, operator, and the line itself.

    Modules that have changed since they were measured are left out, because their lines are others now.
    """
    found = []
    for module, held in results.items():
        path = path_of(module)
        if held["source"] != digest(path):
            continue
        lines = path.read_text().splitlines()
        for key, (outcome, number) in held["mutants"].items():
            text = lines[number - 1] if number <= len(lines) else ""
            if outcome == "survived" and not any(explains(reason, module, key, text) for reason in REASONS):
                found.append(f"{path.relative_to(ROOT)}:{number} {key} in: {text.strip()}")
    return found


def explains(reason: Reason, module: str, key: str, text: str) -> bool:
    """Tell whether a reason is that of a mutant of some line."""
    is_there = f"{module}.".startswith(f"{reason.module}.")
    return is_there and reason.text in text and re.match(reason.operator, key) is not None
