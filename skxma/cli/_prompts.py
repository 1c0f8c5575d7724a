"""`skxma prompts`: print the prompts that the text encoder is given."""

from __future__ import annotations

import argparse
from pathlib import Path

from skxma.cli._model_files import OTHER_PICKLES, OURS, PICKLE, load_model
from skxma.cli._words import complete_names, labels_of, read_names, templates_of


def run_prompts(arguments: argparse.Namespace) -> None:
    """Print the prompts of class names, or of the classes of a data set or a model."""
    from skxma.prompts import clean_name, make_prompts

    given, templates = arguments.classes, templates_of(arguments)
    chosen = read_names(arguments.names)
    place = Path(given[0])
    if len(given) == 1 and place.is_file() and place.suffix.lower() in (OURS, PICKLE, *OTHER_PICKLES):
        clf = load_model(given[0])
        names = dict(zip(clf.classes_.tolist(), clf.class_names_ or [None] * len(clf.classes_), strict=True))
        templates = templates or clf.templates
    else:
        labels = labels_of(given, arguments)
        names = complete_names(chosen, labels) or {label: clean_name(label) for label in labels}
    sent = {label: [] if name is None else make_prompts(name, templates or "simple") for label, name in names.items()}
    for label, prompts in sent.items():
        print(label)
        for prompt in prompts or ["(nothing)"]:
            print(f"  {prompt}")
