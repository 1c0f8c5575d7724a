"""The card of a model on the hub: what it knows, how good it is, what its file discloses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skxma._evidence.fitted import CONFIDENCE_LEVEL
from skxma._statistics import calibration_error
from skxma._version import __version__
from skxma.inspection import support_labels
from skxma.inspection._evaluation import labeled_samples
from skxma.inspection._left_out import expected_accuracy, left_out_answers

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

LONGEST_LIST = 100


def name_encoder(encoder: Any) -> str:
    """The name of an encoder's model, or of its class; of several encoders all names."""
    if isinstance(encoder, (list, tuple)):
        return " + ".join(map(name_encoder, encoder))
    named = encoder if isinstance(encoder, str) else getattr(encoder, "model", getattr(encoder, "name", None))
    return str(named or type(encoder).__name__)


def model_card(clf: BaseFewShotClassifier, repo: str, license_name: str | None) -> str:
    """Describe a fitted classifier in Markdown with the hub's header.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.
    repo : str
        Where it goes, for the example.
    license_name : str or None
        A name of the hub's list, such as "cc-by-4.0".
    """
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        license=license_name,
        library_name="skxma",
        pipeline_tag="image-classification",
        tags=["skxma", "few-shot", "clip"],
    ).to_yaml()
    encoder = name_encoder(clf.encoder)
    paths = getattr(clf, "sample_names_", None) is not None
    lines = [
        "---",
        header,
        "---",
        "",
        f"# {repo.rpartition('/')[2]}",
        "",
        f"A few-shot image classifier, `{type(clf).__name__}` of skxma {__version__}. No code in its file is run.",
        "",
        "```python",
        "import skxma",
        "",
        f'clf = skxma.load("hf-hub:{repo}")',
        'clf.predict(["image.jpg"])',
        "```",
        "",
        f"- Encoder: `{encoder}`, `{clf.encoder_fingerprint_}`; its weights are not in the file.",
        f"- Accuracy: {_accuracy_in_words(clf)}",
        f"- The file discloses: the names of the classes, the embeddings of the {len(clf.image_cache_.keys)} support "
        f"images, from which similar images can be recognized{', and the paths of these images' if paths else ''}.",
        f"- License: {license_name or 'none given'}.",
        "",
        "| class | shots |",
        "|---|---:|",
        *_class_rows(clf),
        "",
    ]
    return "\n".join(lines)


def _accuracy_in_words(clf: BaseFewShotClassifier) -> str:
    """Left-out accuracy and calibration, in words."""
    expected, found = expected_accuracy(clf), left_out_answers(clf)
    if expected is None or found is None:
        return "not measured on images that the model has not learned from."
    return (
        f"{expected.value:.1%} ({CONFIDENCE_LEVEL:.0%} interval {expected.low:.1%} to {expected.high:.1%}) is to be "
        f"expected on new images of the same kind, by the answers to {len(found.right)} support images, each left out; "
        f"calibration error {calibration_error(found.probability, found.right):.1%}."
    )


def _class_rows(clf: BaseFewShotClassifier) -> list[str]:
    """Rows of the table of classes; of very many the first."""
    labels = support_labels(clf)[labeled_samples(clf)]
    shown = clf.classes_[:LONGEST_LIST]
    rows = [f"| {_cell(label)} | {int(np.sum(labels == label))} |" for label in shown]
    more = len(clf.classes_) - len(shown)
    return [*rows, f"| and {more} more | |"] if more else rows


def _cell(label: Any) -> str:
    """A label that stays in its cell and is no markup."""
    text = " ".join(str(label).split())
    return "".join(f"\\{c}" if c in "\\|<>[]*_`#" else c for c in text)
