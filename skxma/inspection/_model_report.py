"""One page about a fitted model: how good it is, which of its images are doubtful, what to label next."""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils.validation import check_is_fitted

from skxma._evidence.fitted import CONFIDENCE_LEVEL
from skxma._runtime.atomic import atomic_write
from skxma._runtime.lines import one_line
from skxma._statistics import calibration_error, near_duplicate_distance, proved_coverage
from skxma.errors import ImageError
from skxma.inspection._draw import thumbnail
from skxma.inspection._evaluation import labeled_samples
from skxma.inspection._labels import labels_in_question, support_labels
from skxma.inspection._left_out import expected_accuracy, left_out_answers
from skxma.inspection._support import image_at, support_names

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

MOST_LISTED = 10
MOST_IN_REPORT = 2**13
"""Images that are compared with one another: the cosines of so many take 256 MiB."""
FENCE = 1.5
"""Tukey's: beyond the lower quartile by so many interquartile ranges a sample is an outlier."""


@dataclass(frozen=True)
class Finding:
    """Some images with a remark about them.

    Attributes
    ----------
    samples : tuple of int
        Numbers of samples given to `fit`; the suggested images are numbered after these.
    words : str
        May be empty.
    """

    samples: tuple[int, ...]
    words: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    title : str
    lines : list of str
        Facts, and what to do about them.
    findings : list of Finding
        What is shown with its images.
    """

    title: str
    lines: list[str]
    findings: list[Finding]


class ModelReport:
    """One page about a fitted model, from :meth:`skxma.XMAdapterClassifier.report`: text, or HTML with images inline.

    ``print(report)`` shows the text, a notebook the page, and `save` writes it.

    Parameters
    ----------
    title : str
    sections : list of Section
    images : sequence of images or None
        Of the samples given to `fit`, and those suggested; None for one that is not at hand.
    names : sequence of str or None
        Their paths.
    """

    def __init__(self, title: str, sections: list[Section], images: Sequence[Any], names: Sequence[str | None]) -> None:
        self.title = title
        self.sections = sections
        self.images = images
        self.names = names

    def __str__(self) -> str:
        parts = [self.title]
        for section in self.sections:
            parts += ["", section.title, "-" * len(section.title), *section.lines]
            parts += [
                f"  {', '.join(self._name_of(sample) for sample in one.samples)}{one.words and f': {one.words}'}"
                for one in section.findings
            ]
        return "\n".join(map(one_line, parts))

    def _name_of(self, sample: int) -> str:
        """The path of a sample, or its number where it has none."""
        return self.names[sample] or f"sample {sample}"

    def to_html(self) -> str:
        """The page as HTML, with the images of the samples inline where they are at hand.

        Returns
        -------
        page : str
            It refers to nothing outside.
        """
        return "\n".join(
            [
                "<!doctype html>",
                f'<html lang="en"><head><meta charset="utf-8"><title>{_escaped(self.title)}</title>',
                f"<style>{STYLE}</style></head><body>",
                self._repr_html_(),
                "</body></html>",
            ]
        )

    def _repr_html_(self) -> str:
        return "\n".join(self._html_parts())

    def _html_parts(self) -> Iterator[str]:
        yield f"<h1>{_escaped(self.title)}</h1>"
        for section in self.sections:
            yield f"<section><h2>{_escaped(section.title)}</h2>"
            yield from (f"<p>{_escaped(line)}</p>" for line in section.lines)
            if section.findings:
                yield "<ul>"
                for one in section.findings:
                    shown = "".join(self._figure(sample) for sample in one.samples)
                    yield f"<li>{shown}<div>{_escaped(one.words)}</div></li>"
                yield "</ul>"
            yield "</section>"

    def _figure(self, sample: int) -> str:
        name = _escaped(self._name_of(sample))
        pixels = self._pixels(sample)
        if pixels is None:
            return f"<figure><figcaption>{name}</figcaption></figure>"
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        content = base64.b64encode(buffer.getvalue()).decode()
        short = _escaped(Path(self._name_of(sample)).name)
        return (
            f'<figure><img src="data:image/png;base64,{content}" alt="{name}" title="{name}">'
            f"<figcaption>{short}</figcaption></figure>"
        )

    def _pixels(self, sample: int) -> NDArray[np.uint8] | None:
        image = self.images[sample]
        if image is None:
            return None
        try:
            return thumbnail(image)
        except ImageError:
            # a file that is no image by now
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page: HTML where the name ends in ".html" or ".htm", else text.

        Parameters
        ----------
        path : str or path-like
            What was there is replaced.
        """
        is_page = Path(path).suffix.lower() in (".html", ".htm")
        content = self.to_html() if is_page else f"{self}\n"
        with atomic_write(path) as stream:
            stream.write(content.encode(errors="surrogateescape"))


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin:1.6rem 0 .3rem}p{margin:.2rem 0}"
    "ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:1rem}li{max-width:24rem}"
    "figure{display:inline-block;margin:0 .4rem 0 0}img{width:96px;height:96px;border:1px solid #ccc}"
    "figcaption{font-size:.75rem;color:#5f5f5f;max-width:96px;overflow-wrap:anywhere}"
)


def model_report(
    clf: BaseFewShotClassifier, images: Sequence[Any] | None = None, suggested: Sequence[str] = ()
) -> ModelReport:
    """Look into a fitted classifier and put what was found on one page.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.
    images : sequence of images, optional
        What was given to `fit`.
    suggested : sequence of str
        Images without labels that are worth one, the most useful first.
    """
    check_is_fitted(clf)
    names = support_names(clf)
    if images is not None and len(images) != len(names):
        raise ValueError(f"{len(images)} images were given, and the model was fitted on {len(names)}; give these.")
    n = int(labeled_samples(clf).sum())
    title = f"{type(clf).__name__}: {n} labeled images of {len(clf.classes_)} classes"
    sections = [
        _accuracy_section(clf),
        _sets(clf),
        _confusion(clf),
        _doubtful_labels(clf),
        _near_duplicates(clf),
        _outliers(clf),
        _few_images(clf),
        _next_labels(clf, suggested, len(names)),
    ]
    at_hand = [image_at(name) for name in names] if images is None else list(images)
    at_hand += [image_at(name) for name in suggested]
    found = [section for section in sections if section is not None]
    return ModelReport(title, found, at_hand, [*names, *suggested])


def _accuracy_section(clf: BaseFewShotClassifier) -> Section:
    expected, found = expected_accuracy(clf), left_out_answers(clf)
    if expected is None or found is None:
        line = "No image could be judged by a model that has not seen it: give each class a second image."
        return Section("Accuracy", [line], [])
    right, probability = found.right, found.probability
    gap = probability.mean() - right.mean()
    stated = f"its answers state {probability.mean():.1%} on average, and {right.mean():.1%} of them are right"
    if abs(gap) < 2 * _error(right):
        verdict = "that is what they are worth"
    else:
        verdict = "believe them less" if gap > 0 else "believe them more"
    return Section(
        "Accuracy",
        [
            f"{expected.value:.1%} is to be expected on new images of the same kind "
            f"({CONFIDENCE_LEVEL:.0%} interval {expected.low:.1%} to {expected.high:.1%}).",
            f"Calibration: {stated}; {verdict}. Calibration error {calibration_error(probability, right):.1%}.",
        ],
        [],
    )


def _error(right: NDArray[np.bool_]) -> float:
    """Standard error of a share, which few trials leave above 0 where all are right."""
    n = len(right)
    share = (right.sum() + 1) / (n + 2)
    return math.sqrt(share * (1 - share) / n)


def _sets(clf: BaseFewShotClassifier) -> Section | None:
    if not hasattr(clf, "calibration_"):
        return None
    n = round(clf.calibration_.weights.sum())
    lines = [f"{n} different images calibrate them: levels up to {n / (n + 1):.1%} can be had."]
    folds = getattr(clf, "fold_fits_", None)
    if folds is not None:
        proved = proved_coverage(CONFIDENCE_LEVEL, n, len(folds))
        lines.append(f"At {CONFIDENCE_LEVEL:.0%}, {proved:.1%} of the sets are proved to hold it for like images.")
    return Section("Prediction sets", lines, [])


def _confusion(clf: BaseFewShotClassifier) -> Section | None:
    found = left_out_answers(clf)
    if found is None:
        return None
    wrong = np.stack([found.labels, found.answers], axis=1)[~found.right]
    pairs, counts = np.unique(wrong.astype(str), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_LISTED]
    lines = [f"{pairs[i, 0]} is taken for {pairs[i, 1]}: {counts[i]}" for i in order]
    return Section("Classes that are confused", lines or ["None: every image that was left out is answered right."], [])


def _doubtful_labels(clf: BaseFewShotClassifier) -> Section | None:
    if getattr(clf, "evidence", None) != "calibrated":
        return None
    doubts = labels_in_question(clf)[:MOST_LISTED]
    findings = [
        Finding(
            (one.sample,),
            f"labeled {one.label}, rather {one.suggested}; wrong with probability {one.probability:.2f}",
        )
        for one in doubts
    ]
    line = "Look at these, and correct the labels that are wrong." if doubts else "None."
    return Section("Doubtful labels", [line], findings)


def _compared(clf: BaseFewShotClassifier) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Samples, one per key, and the cosines of their images; of very many the first."""
    position = clf.sample_position_
    keys, samples = np.unique(position, return_index=True)
    keys, samples = keys[keys >= 0][:MOST_IN_REPORT], samples[keys >= 0][:MOST_IN_REPORT]
    embeddings = clf.image_cache_.embeddings[keys]
    return samples, embeddings @ embeddings.T


def _near_duplicates(clf: BaseFewShotClassifier) -> Section:
    samples, cosines = _compared(clf)
    labels = support_labels(clf)
    of_keys = np.unique(labels[samples], return_inverse=True)[1]
    limit = near_duplicate_distance(clf.image_cache_.embeddings[clf.sample_position_[samples]], of_keys)
    first, second = np.nonzero(np.triu(1 - cosines < limit, k=1))
    order = np.argsort(-cosines[first, second], kind="stable")[:MOST_LISTED]
    findings = []
    for i in order:
        a, b = sorted((int(samples[first[i]]), int(samples[second[i]])))
        same = "both " if labels[a] == labels[b] else f"labeled {labels[a]} and "
        findings.append(Finding((a, b), f"{same}{labels[b]}; cosine {cosines[first[i], second[i]]:.3f}"))
    position = clf.sample_position_[clf.sample_position_ >= 0]
    twice = len(position) - len(np.unique(position))
    lines = [f"{twice} images were given more than once with the same label, and count as one of more weight."]
    lines = lines if twice else []
    if findings:
        lines.append("Images that are nearly the same add little; with two labels, one of them is wrong.")
    return Section("Near-duplicates", lines or ["None."], findings)


def _outliers(clf: BaseFewShotClassifier) -> Section | None:
    samples, cosines = _compared(clf)
    if len(samples) < 4:
        return None
    nearest = np.where(np.eye(len(samples), dtype=bool), -1.0, cosines).max(axis=1)
    lower, upper = np.quantile(nearest, [0.25, 0.75])
    order = np.argsort(nearest, kind="stable")
    far = [i for i in order if nearest[i] < lower - FENCE * (upper - lower)][:MOST_LISTED]
    labels = support_labels(clf)
    findings = [
        Finding((int(samples[i]),), f"labeled {labels[samples[i]]}; cosine to the nearest other image {nearest[i]:.2f}")
        for i in far
    ]
    line = "Unlike all other images; leave them out if they show something else." if far else "None."
    return Section("Outliers", [line], findings)


def _few_images(clf: BaseFewShotClassifier) -> Section:
    shots = clf.image_cache_.shots
    few = np.flatnonzero((shots < 2) | (2 * shots < np.median(shots)))
    named = [f"{clf.classes_[c]} ({shots[c]})" for c in few[np.argsort(shots[few], kind="stable")][: 2 * MOST_LISTED]]
    if not named:
        return Section("Classes with too few images", ["None."], [])
    more = f" and {len(few) - len(named)} more" if len(few) > len(named) else ""
    return Section("Classes with too few images", [f"{', '.join(named)}{more}."], [])


def _next_labels(clf: BaseFewShotClassifier, suggested: Sequence[str], first: int) -> Section:
    """Section on the images to label next; the suggested ones have the numbers from `first` on."""
    shots = clf.image_cache_.shots
    wrong = np.zeros(len(shots))
    found = left_out_answers(clf)
    if found is not None:
        np.add.at(wrong, np.searchsorted(clf.classes_, found.labels[~found.right]), 1)
    # the posterior mean of a class's error rate: few images and many errors both raise it
    rate = (wrong + 1) / (shots + 2)
    order = np.argsort(-rate, kind="stable")[:5]
    wanted = ", ".join(str(clf.classes_[c]) for c in order)
    lines = [f"More images of these classes are worth the most: {wanted}."]
    if suggested:
        lines.append("Of the images without labels, these first:")
    return Section("What to label next", lines, [Finding((first + i,), "") for i in range(len(suggested))])
