"""`skxma fit`: fit on a folder or table of images and save the model."""

from __future__ import annotations

import argparse
import math
import sys

from skxma.cli._model_files import pictures, place_for, save
from skxma.cli._words import read_names, templates_of


def run_fit(arguments: argparse.Namespace) -> None:
    """Fit on a folder or table and save the model."""
    target = place_for(arguments.model)
    from skxma._estimators.xmadapter import XMAdapterClassifier
    from skxma.datasets import load_image_folder
    from skxma.inspection import labels_in_question

    data = load_image_folder(arguments.data)
    names = read_names(arguments.names, data.target_names.tolist())
    unlabelled = list(pictures(arguments.unlabeled or ()))
    if arguments.unlabeled and not unlabelled:
        raise FileNotFoundError(f"{' '.join(arguments.unlabeled)}: no pictures there to learn from without labels.")
    clf = XMAdapterClassifier(
        arguments.encoder,
        class_names=names,
        templates=templates_of(arguments) or "simple",
        memory=arguments.memory,
        device=arguments.device,
        random_state=0,
        verbose=int(sys.stderr.isatty()),
        unlabeled_label=math.nan if unlabelled else None,
    )
    clf.fit([*data.paths, *unlabelled], [*data.target, *[None] * len(unlabelled)])
    save(clf.set_params(verbose=0), target)
    print(f"{len(data.paths)} pictures of {len(clf.classes_)} classes; saved {target}", file=sys.stderr)
    unseen = sorted(set(names or ()) - set(data.target))
    if unseen:
        print(f"known from their text alone, without pictures: {', '.join(unseen)}", file=sys.stderr)
    if unlabelled:
        print(f"learned from {clf.n_unlabeled_used_} of {len(unlabelled)} pictures without labels", file=sys.stderr)
    for found in labels_in_question(clf):
        where = f"{data.paths[found.sample]}, rather {found.suggested}"
        print(f"label in question ({found.probability:.2f}): {where}", file=sys.stderr)
