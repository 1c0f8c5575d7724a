"""`skxma fit | predict | explain | prompts`: from folders of images to a saved model and its answers."""

from __future__ import annotations

import argparse
from typing import Any

from skxma.benchmark._names import DEFAULT_ENCODER
from skxma.cli._explain import run_explain
from skxma.cli._fit import run_fit
from skxma.cli._help import Once, positive_count
from skxma.cli._inputs import add_columns
from skxma.cli._predict import run_predict
from skxma.cli._prompts import run_prompts
from skxma.cli._tables import TABLE_FORMATS
from skxma.cli._words import add_words


def add_parsers(commands: Any) -> None:
    """Add the commands to the subparsers of the command line."""
    fit = commands.add_parser(
        "fit",
        help="fit a classifier on a folder of images and save it",
        description="Fit on a folder with a folder of images for each class, or on a table (CSV) with a column of "
        "paths and one of labels. The names of the folders, or the labels, are the class names. Of a folder with "
        "train/ and test/, train/ is taken.",
        epilog="examples: skxma fit birds/ --model birds.skxma --unlabeled camera/    "
        "skxma fit birds.csv --label-column species --model birds.skxma --force",
    )
    fit.add_argument("data", metavar="DIR", help="folder with one folder per class, or table")
    fit.add_argument(
        "--unlabeled", nargs="+", metavar="DIR", help="images without labels, or folders of them, to learn from too"
    )
    fit.add_argument(
        "--model", required=True, metavar="FILE", help="where to save the model: NAME.skxma, or NAME.joblib"
    )
    fit.add_argument("--force", action="store_true", help="replace a model that is there")
    fit.add_argument(
        "--encoder",
        action="append",
        metavar="NAME",
        help=f"given again, several at once: one knows texts, the others images alone (default: {DEFAULT_ENCODER})",
    )
    add_words(fit)
    add_columns(fit)
    add_memory(fit)
    fit.add_argument("--no-paths", action="store_true", help="leave the paths of the images out of the model")
    fit.add_argument("--device", default="auto", metavar="NAME", help="(default: %(default)s)")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser(
        "predict",
        help="classify images with a saved model",
        description="Print the most probable classes of each image, or with --set as many as are needed to be sure. "
        "Images that cannot be read are named on stderr "
        "and the others answered; the status is 1. A model in .joblib is a pickle: open only those you trust.",
        epilog="examples: skxma predict birds.skxma new/*.jpg --top 3 --format csv    "
        "find new -name '*.jpg' | skxma predict birds.skxma -    skxma predict birds.skxma new --set 0.9",
    )
    predict.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders of them, or - for a list on stdin")
    answers = predict.add_mutually_exclusive_group()
    answers.add_argument("--top", type=positive_count, default=1, metavar="N", help="classes per image (default: 1)")
    answers.add_argument(
        "--set",
        dest="confidence_level",
        type=float,
        metavar="LEVEL",
        help="the classes that hold the right one with this confidence, such as 0.9",
    )
    predict.add_argument("--format", choices=TABLE_FORMATS, default="table", help="(default: %(default)s)")
    predict.add_argument(
        "--class-prior",
        metavar="SHARES",
        help="class frequencies among the images: batch estimates them; or a=0.9,b=0.1; or a JSON file of shares by "
        "class",
    )
    predict.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    add_place_of_encoder(predict)
    predict.set_defaults(run=run_predict)

    explain = commands.add_parser(
        "explain",
        help="show the evidence for an answer",
        description="Print the probabilities from the text alone and with the support images, and the support images "
        "that were retrieved for an image.",
        epilog="example: skxma explain birds.skxma new/1.jpg --support birds/",
    )
    explain.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    explain.add_argument("image", metavar="IMAGE")
    explain.add_argument(
        "--support", metavar="DIR", help="where the images of the fit are now; they are found by name and content"
    )
    explain.add_argument("--top", type=positive_count, default=5, metavar="N", help="support images (default: 5)")
    add_place_of_encoder(explain)
    add_columns(explain)
    explain.set_defaults(run=run_explain)

    prompts = commands.add_parser(
        "prompts",
        help="show the prompts that are sent for class names",
        description="Print the prompts of each class: of the names given, of a data set's classes, or of a model's.",
        epilog="examples: skxma prompts heron 'a white egret' --templates imagenet    "
        "skxma prompts birds/ --names names.json    skxma prompts birds.skxma    "
        "skxma prompts Reiher --templates 'ein Foto von {}' --templates 'eine Zeichnung von {}'",
    )
    prompts.add_argument(
        "classes", nargs="+", metavar="NAME", help="class names, or one folder or table of images, or one model"
    )
    add_words(prompts)
    add_columns(prompts)
    prompts.set_defaults(run=run_prompts)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where embeddings are kept."""
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument(
        "--memory",
        metavar="DIR",
        default=True,
        help="keep embeddings there from run to run (default: the folder that `skxma cache info` names)",
    )
    memory.add_argument(
        "--no-memory", dest="memory", action="store_const", const=None, help="keep no embeddings from run to run"
    )


def add_place_of_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a saved model's encoder is, and where it runs."""
    parser.add_argument(
        "--encoder",
        action=Once,
        metavar="NAME",
        help="where the model's encoder is now, such as local-dir:DIR; no other is taken",
    )
    parser.add_argument("--device", metavar="NAME", help="(default: that of the fit)")
