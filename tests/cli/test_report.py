from pathlib import Path

import pytest

from skxma import XMAdapterClassifier, load
from skxma.cli.main import main
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    emoji = load_emoji(as_paths=True)
    rows = [i for i, name in enumerate(emoji.target) if name in emoji.target_names[:3] and emoji.sets[i] != "noto"]
    path = tmp_path_factory.mktemp("report") / "m.skxma"
    XMAdapterClassifier("tiny", n_epochs=0).fit([emoji.images[i] for i in rows], emoji.target[rows]).save(path)
    return path


def test_the_text_is_that_of_the_classifier(model, capsys):
    assert main(["report", str(model)]) == 0
    assert capsys.readouterr().out == f"{load(model).report()}\n"


def test_a_page_with_images_to_label_next(model, tmp_path, capsys):
    folder = str(Path(load_emoji(as_paths=True).images[0]).parents[1] / "fox")
    out = tmp_path / "page.html"
    assert main(["report", str(model), "--out", str(out), "--pool", folder, "-n", "2"]) == 0
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    # both are shown, by the path and by themselves
    assert page.count(f'title="{folder}') == 2
    assert page.count("<img") >= 2
    assert main(["report", str(model), "--pool", folder, "-n", "2"]) == 0
    assert capsys.readouterr().out.count(f"\n  {folder}") == 2
    assert main(["report", str(model), "--out", str(out), "--pool", folder, "-n", "2"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.bad_input
def test_a_folder_that_is_not_there(model, tmp_path, capsys):
    assert main(["report", str(model), "--out", str(tmp_path / "none" / "page.html")]) == 1
    assert "none" in capsys.readouterr().err
