"""`skxma demo`: the whole job on the bundled sample with the bundled encoder, without a network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from skxma._estimators.xmadapter import XMAdapterClassifier
from skxma.cli._retrieval_sheet import SheetImage, SheetRow, retrieval_sheet
from skxma.datasets import load_emoji
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.images._reading import load_image
from skxma.persistence import load

DEMO_SHOTS = (1, 2, 4)
N_QUERIES, SHEET_NEIGHBORS = 8, 4
# so that figures are the same where bf16 is native and where it is not
PRECISION = "fp32"


def run_demo(folder: str | Path) -> None:
    """Fit at 1, 2 and 4 shots, compare with zero-shot, save and reload a model, draw what it retrieves.

    Parameters
    ----------
    folder : str or Path
        Where the model and the image are written; made where it is absent.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    emoji = load_emoji(as_paths=True)
    styles = np.unique(emoji.sets)
    things = len(emoji.target_names)
    print(f"{len(emoji.images)} emoji: {things} things, each drawn in {len(styles)} styles; encoder 'tiny'")
    start = time.perf_counter()
    embeddings = CLIPEncoder("tiny", precision=PRECISION).transform(emoji.images)
    print(f"encoded in {time.perf_counter() - start:.1f} s (the weights' loading included)\n")
    print("shots  zero-shot  XMAdapter     fit  predict  (mean over which styles are the shots, tested on the others)")
    for shots in DEMO_SHOTS:
        accuracy, zero_shot, fit, predict = np.mean(list(_trials(embeddings, emoji, shots)), axis=0)
        print(f"{shots:5d}  {zero_shot:8.1%}  {accuracy:9.1%}  {fit:5.2f} s  {1e3 * predict:4.2f} ms per image")
    _save_and_show(emoji, folder)


def support_of(emoji: Bunch, shots: int, turn: int) -> NDArray[np.bool_]:
    """Which images are the support set when as many styles as shots are, from style number `turn` on."""
    styles = np.unique(emoji.sets)
    return np.isin(emoji.sets, np.roll(styles, -turn)[:shots])


def _classifier() -> XMAdapterClassifier:
    # two designers draw some things nearly alike; these are no copies, so each image is fitted as a group of its own
    return XMAdapterClassifier("tiny", precision=PRECISION)


def _trials(embeddings: NDArray[np.float32], emoji: Bunch, shots: int) -> Iterator[tuple[float, float, float, float]]:
    """Accuracy, zero-shot accuracy, seconds of the fit and of a prediction, for every turn of the styles."""
    for turn in range(len(np.unique(emoji.sets))):
        support = support_of(emoji, shots, turn)
        queries, labels = embeddings[~support], emoji.target[~support]
        start = time.perf_counter()
        clf = _classifier().fit(embeddings[support], emoji.target[support], groups=range(support.sum()))
        fitted = time.perf_counter()
        predicted = clf.predict(queries)
        done = time.perf_counter()
        zero_shot = clf.classes_[clf.zero_shot(queries).argmax(1)]
        yield (
            float(np.mean(predicted == labels)),
            float(np.mean(zero_shot == labels)),
            fitted - start,
            (done - fitted) / len(queries),
        )


def _save_and_show(emoji: Bunch, folder: Path) -> None:
    support = support_of(emoji, 2, 0)
    paths = np.array(emoji.images, dtype=object)
    clf = _classifier().fit(paths[support], emoji.target[support], groups=range(support.sum()))
    file = folder / "emoji.skxma"
    clf.save(file)
    loaded = load(file)
    queries = np.flatnonzero(~support)
    same = np.array_equal(clf.predict_proba(paths[queries]), loaded.predict_proba(paths[queries]))
    outcome = "the same" if same else "OTHERWISE"
    print(f"\nsaved {file} ({file.stat().st_size / 1e6:.2f} MB); reloaded, it predicts {outcome}")
    chosen = queries[:: len(queries) // N_QUERIES][:N_QUERIES]
    answers = list(_answers(loaded, paths, emoji.target, support, chosen))
    image = folder / "retrieval.png"
    retrieval_sheet(answers, "Queries and the support images retrieved for them, two shots").save(image)
    print(f"wrote {image}: queries, the support images retrieved for them, and both affinities")


def _answers(
    clf: XMAdapterClassifier,
    paths: NDArray[Any],
    labels: NDArray[Any],
    support: NDArray[np.bool_],
    queries: NDArray[np.intp],
) -> Iterator[SheetRow]:
    """Retrieved images and prediction for each query."""
    rows = np.flatnonzero(support)
    image, text, found = clf.kneighbors(paths[queries], SHEET_NEIGHBORS)
    probabilities = clf.predict_proba(paths[queries])
    for i, query in enumerate(queries):
        retrieved = [
            SheetImage(load_image(paths[rows[j]]), str(labels[rows[j]]), float(a), float(b))
            for j, a, b in zip(found[i], image[i], text[i], strict=True)
        ]
        best = int(probabilities[i].argmax())
        yield SheetRow(
            load_image(paths[query]),
            str(labels[query]),
            str(clf.classes_[best]),
            float(probabilities[i, best]),
            retrieved,
        )
