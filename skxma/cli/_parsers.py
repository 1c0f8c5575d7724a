"""`skxma fit | predict | explain | prompts`: from folders of pictures to a saved model and its answers."""

from __future__ import annotations

from typing import Any

from skxma.benchmark._problem import DEFAULT_ENCODER
from skxma.cli._explain import run_explain
from skxma.cli._fit import run_fit
from skxma.cli._help import positive_count
from skxma.cli._predict import run_predict
from skxma.cli._prompts import run_prompts
from skxma.cli._words import add_words

FORMATS = ("table", "csv", "json")


def add_parsers(commands: Any) -> None:
    """Add the commands to the subparsers of the command line."""
    fit = commands.add_parser(
        "fit",
        help="fit a classifier on a folder of pictures and save it",
        description="Fit on a folder with a folder of pictures for each class, or on a CSV file with the columns path "
        "and label. The names of the folders, or the labels, are the class names.",
        epilog="example: skxma fit birds/ --model birds.skxma --unlabeled camera/",
    )
    fit.add_argument("data", metavar="DIR", help="folder with a folder a class, or CSV file")
    fit.add_argument(
        "--unlabeled", nargs="+", metavar="DIR", help="pictures without labels, or folders of them, to learn from too"
    )
    fit.add_argument(
        "--model", required=True, metavar="FILE", help="where to save the model: NAME.skxma, or NAME.joblib"
    )
    fit.add_argument("--encoder", default=DEFAULT_ENCODER, metavar="NAME", help="(default: %(default)s)")
    add_words(fit)
    fit.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    fit.add_argument("--device", default="auto", metavar="NAME", help="(default: %(default)s)")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser(
        "predict",
        help="classify pictures with a saved model",
        description="Print the most probable classes of each picture. Pictures that cannot be read are named on stderr "
        "and the others answered; the status is 1. A model in .joblib is a pickle: open only those you trust.",
        epilog="example: skxma predict birds.skxma new/*.jpg --top 3 --format csv    "
        "find new -name '*.jpg' | skxma predict birds.skxma -",
    )
    predict.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for a list on stdin"
    )
    predict.add_argument("--top", type=positive_count, default=1, metavar="N", help="classes a picture (default: 1)")
    predict.add_argument("--format", choices=FORMATS, default="table", help="(default: %(default)s)")
    predict.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    predict.set_defaults(run=run_predict)

    explain = commands.add_parser(
        "explain",
        help="show the evidence for an answer",
        description="Print what the text alone says of a picture, and which support images were retrieved for it.",
        epilog="example: skxma explain birds.skxma new/1.jpg --support birds/",
    )
    explain.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    explain.add_argument("image", metavar="IMAGE")
    explain.add_argument("--support", metavar="DIR", help="the data of the fit, to name its pictures")
    explain.add_argument("--top", type=positive_count, default=5, metavar="N", help="support images (default: 5)")
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
        "classes", nargs="+", metavar="NAME", help="class names, or one folder or CSV file of pictures, or one model"
    )
    add_words(prompts)
    prompts.set_defaults(run=run_prompts)
