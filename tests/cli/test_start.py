"""What the command line imports: nothing that takes long before its arguments, files and tables are right."""

import gc
import json
import subprocess
import sys

import pytest

from skxma import XMAdapterClassifier
from skxma.cli.main import main
from skxma.datasets import load_emoji

LONG = ("torch", "open_clip", "sklearn", "scipy", "matplotlib", "tqdm", "pandas", "transformers")
WRONG = {
    "an unknown command": ["predikt"],
    "an unknown option": ["predict", "m.skxma", "a.png", "--nope"],
    "a wrong choice": ["benchmark", "--methods", "nope"],
    "no number": ["suggest", "new", "-n", "0"],
    "no model": ["predict", "none.skxma", "a.png"],
    "no model to evaluate": ["evaluate", "none.skxma", "t.csv"],
    "no model to describe": ["info", "none.skxma"],
    "no model to report on": ["report", "none.skxma", "--pool", "new"],
    "no such strategy": ["suggest", "new", "--strategy", "best"],
    "a strategy that asks a model": ["suggest", "new", "--strategy", "margin"],
    "no share": ["suggest", "new", "--random-share", "3"],
    "a folder to explain": ["explain", "m.skxma", "new"],
    "no model to suggest by": ["suggest", "new", "--model", "none.skxma"],
    "no model to export": ["export", "none.skxma", "m.onnx"],
    "another file": ["predict", "a.png", "a.png"],
    "no image": ["predict", "m.skxma", "none.png"],
    "no image to explain": ["explain", "m.skxma", "none.png"],
    "an empty folder": ["predict", "m.skxma", "new"],
    "no folder": ["fit", "none", "--model", "n.skxma"],
    "a model that is there": ["fit", "t.csv", "--model", "m.skxma"],
    "no column of that name": ["fit", "t.csv", "--model", "n.skxma", "--label-column", "nope"],
    "no such column to evaluate": ["evaluate", "m.skxma", "t.csv", "--path-column", "nope"],
    "an image of the table is missing": ["fit", "missing.csv", "--model", "n.skxma"],
    "no encoder of images": ["fit", "t.csv", "--model", "n.skxma", "--encoder", "precomputed"],
    "one class": ["fit", "t.csv", "--model", "n.skxma"],
    "names that are no JSON": ["fit", "t.csv", "--model", "n.skxma", "--names", "t.csv"],
    "shares that are no JSON": ["predict", "m.skxma", "a.png", "--class-prior", "t.csv"],
}
# run in a process of its own, whose modules are not those of the tests
RUN_ALL = """
import json, sys
from skxma.cli.main import main
commands, long = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for what, words in commands.items():
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    print(json.dumps([what, status, [name for name in long if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    emoji = load_emoji(as_paths=True, sets=["noto", "twemoji"])
    chosen = [i for i, label in enumerate(emoji.target) if label in ("bear", "fox")]
    paths = [emoji.images[i] for i in chosen]
    clf = XMAdapterClassifier("tiny", precision="fp32").fit(paths, emoji.target[chosen])
    clf.save(folder / "m.skxma")
    (folder / "a.png").write_bytes(paths[0].read_bytes())
    (folder / "t.csv").write_text("path,label\na.png,bear\n")
    (folder / "c.png").write_bytes(paths[-1].read_bytes())
    (folder / "two.csv").write_text("path,label\na.png,bear\nc.png,fox\n")
    (folder / "missing.csv").write_text("path,label\na.png,bear\nb.png,fox\n")
    (folder / "new").mkdir()
    return folder


def run(folder, code, *words):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_parsers_are_made_without_arrays():
    code = "import sys, skxma.cli.main; print([name for name in ('numpy', 'PIL') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_what_is_wrong_is_told_before_anything_long_is_imported(folder):
    done = run(folder, RUN_ALL, json.dumps(WRONG), json.dumps(LONG))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(what, bool(status), imported) for what, status, imported in told] == [(what, True, []) for what in WRONG]
    for words in (
        "none.skxma",
        "nope",
        "none.png: no such file",
        "b.png",
        "is no model file",
        "1 class with images",
        "new is a folder; name one image",
    ):
        assert words in done.stderr


def test_a_missing_image_without_a_label_is_told_before_torch_is_imported(folder):
    code = "import sys; from skxma.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    done = run(folder, code, "fit", "two.csv", "--model", "n.skxma", "--unlabeled", "lost.png")
    assert done.stdout.split() == ["1", "False"]
    assert "lost.png" in done.stderr


def test_a_prediction_imports_no_rivals_and_no_search(folder):
    code = "import sys; from skxma.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    answer, modules = run(folder, code, "predict", "m.skxma", "a.png").stdout.splitlines()
    assert answer.endswith("bear")
    needless = {
        "skxma.baselines",
        "skxma.benchmark._runner",
        "skxma.app",
        "sklearn.model_selection",
        "matplotlib",
        "flask",
    }
    assert not needless & set(modules.split())


def test_the_garbage_collector_is_as_it_was(folder, capsys):
    before = gc.get_threshold()
    assert main(["info", str(folder / "m.skxma")]) == 0
    assert main(["info", str(folder / "none.skxma")]) == 1
    assert gc.get_threshold() == before
