"""`skxma explain`: print the evidence for an answer."""

from __future__ import annotations

import argparse

from skxma.cli._model_files import load
from skxma.cli._tables import print_columns


def run_explain(arguments: argparse.Namespace) -> None:
    """Print zero-shot, the answer, and the support images retrieved with both affinities."""
    from skxma.datasets import load_image_folder
    from skxma.inspection import support_labels

    clf = load(arguments.model)
    paths = load_image_folder(arguments.support).paths if arguments.support else None
    # those without labels were given last
    n_samples = len(clf.sample_position_) - len(getattr(clf, "unlabeled_position_", ()))
    if paths is not None and len(paths) != n_samples:
        raise ValueError(f"{arguments.support} has {len(paths)} pictures, the model was fitted on {n_samples}.")
    query = [arguments.image]
    probabilities, zero_shot = clf.predict_proba(query)[0], clf.zero_shot(query)[0]
    best = probabilities.argsort()[::-1][:3]
    answers = [(str(clf.classes_[c]), f"{probabilities[c]:.1%}", f"{zero_shot[c]:.1%}") for c in best]
    print_columns(("class", "answer", "zero-shot"), answers, n_words=1)
    print()
    labels = support_labels(clf)
    image, text, found = (part[0] for part in clf.kneighbors(query, arguments.top))
    retrieved = [
        (f"number {i}" if paths is None else paths[i], str(labels[i]), f"{a:+.2f}", f"{b:+.2f}")
        for i, a, b in zip(found, image, text, strict=True)
    ]
    print_columns(("support image", "its class", "image affinity", "text affinity"), retrieved, n_words=2)
