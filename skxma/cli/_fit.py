"""`skxma fit`: fit on a folder or table of images and save the model."""

from __future__ import annotations

import argparse
import math
import sys

from skxma._runtime.lines import counted
from skxma.cli._info import left_out_line
from skxma.cli._inputs import check_files, image_paths, read_labeled_images
from skxma.cli._model_files import memory_of, named_encoders, place_for, save
from skxma.cli._streams import say
from skxma.cli._words import complete_names, read_names, templates_of


def run_fit(arguments: argparse.Namespace) -> None:
    """Fit on a folder or table and save the model."""
    target = place_for(arguments.model, arguments.force)
    encoder = named_encoders(arguments.encoder)
    given = read_names(arguments.names)
    data = read_labeled_images(arguments.data, arguments)
    names = complete_names(given, data.target_names.tolist())
    unlabeled = image_paths(arguments.unlabeled or ())
    if arguments.unlabeled and not unlabeled:
        raise FileNotFoundError(f"{' '.join(arguments.unlabeled)}: no images there to learn from without labels.")
    check_files(unlabeled)
    from skxma._estimators.xmadapter import XMAdapterClassifier
    from skxma.inspection import labels_in_question

    clf = XMAdapterClassifier(
        encoder,
        class_names=names,
        templates=templates_of(arguments) or "simple",
        memory=memory_of(arguments),
        device=arguments.device,
        random_state=0,
        verbose=int(sys.stderr.isatty()),
        unlabeled_label=math.nan if unlabeled else None,
    )
    groups = None if data.groups is None else [*data.groups, *[None] * len(unlabeled)]
    clf.fit([*data.paths, *unlabeled], [*data.target, *[None] * len(unlabeled)], groups=groups)
    if arguments.no_paths:
        clf.sample_names_ = None
    save(clf.set_params(verbose=0, memory=None), target)
    say(f"{len(data.paths)} images of {len(clf.classes_)} classes; saved {target}")
    unseen = sorted({label for label, name in (names or {}).items() if name is not None} - set(data.target))
    if unseen:
        say(f"known from their text alone, without images: {', '.join(unseen)}")
    if unlabeled:
        say(f"learned from {clf.n_unlabeled_used_} of {len(unlabeled)} images without labels")
    if groups is not None:
        n_groups = len(set(data.groups) - {""})
        say(f"the column of groups names {counted(n_groups, 'group')}, each left out as a whole to judge the model")
    if line := left_out_line(clf):
        say(line)
    for found in labels_in_question(clf):
        say(f"label in question ({found.probability:.2f}): {data.paths[found.sample]}, rather {found.suggested}")
