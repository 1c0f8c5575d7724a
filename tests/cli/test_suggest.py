"""`skxma suggest` on a folder of unsorted images."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import joblib
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skxma import XMAdapterClassifier
from skxma.cli.main import main
from skxma.datasets import load_emoji
from skxma.encoder._encoding_job import EncodingJob

NAMES = ("bear", "fox", "crab")


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """A folder of unsorted images, whose names begin with their class."""
    folder = tmp_path_factory.mktemp("suggest") / "camera"
    folder.mkdir()
    emoji = load_emoji(as_paths=True)
    for path, name, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if name in NAMES:
            shutil.copy(path, folder / f"{name}-{style}.png")
    return folder


def sort_by_name(folder):
    """Move each image of a folder to one there that is named after its class."""
    for copy in [one for one in folder.iterdir() if one.suffix == ".png"]:
        label = re.match(r"\d+-(\w+)-", copy.name)[1]
        (folder / label).mkdir(exist_ok=True)
        copy.rename(folder / label / copy.name)


def suggest(capsys, *words):
    status = main(["suggest", *map(str, words), "--encoder", "tiny"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_from_an_unsorted_folder_to_a_model_and_its_next_images(camera, tmp_path, capsys):
    status, out, err = suggest(capsys, camera, "-n", 6, "--copy-to", tmp_path / "sort")
    first = out.splitlines()
    assert status == 0
    assert len(first) == 6
    assert "6 images copied" in err
    copies = sorted((tmp_path / "sort").iterdir())
    assert [copy.name for copy in copies] == [f"{i}-{Path(path).name}" for i, path in enumerate(first, start=1)]
    sort_by_name(tmp_path / "sort")
    model = str(tmp_path / "m.skxma")
    assert main(["fit", str(tmp_path / "sort"), "--model", model, "--encoder", "tiny"]) == 0
    status, out, _ = suggest(capsys, camera, "--model", model, "-n", 4, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert len(rows) == 4
    assert not {row["path"] for row in rows} & set(first)
    assert {row["class"] for row in rows} <= set(NAMES)
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_classes_that_are_named_get_folders_and_an_image_each(camera, tmp_path, capsys):
    status, out, err = suggest(capsys, camera, "--copy-to", tmp_path / "sort", "--classes", *NAMES, "not a thing")
    assert status == 0
    assert len(out.splitlines()) == len(NAMES) + 1
    assert f"{len(NAMES) + 1} images copied" in err
    folders = {entry.name for entry in (tmp_path / "sort").iterdir() if entry.is_dir()}
    assert folders == {*NAMES, "not a thing"}
    sort_by_name(tmp_path / "sort")
    model = str(tmp_path / "m.skxma")
    assert main(["fit", str(tmp_path / "sort"), "--model", model, "--encoder", "tiny"]) == 0
    assert "Left out the class not a thing: its folder is empty" in capsys.readouterr().err
    status, _, err = suggest(capsys, camera, "--model", model, "--classes", "a")
    assert status == 1
    assert "--classes is for the first round" in err
    assert len(suggest(capsys, camera, "--classes", *NAMES, "-n", 1)[1].splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b", "..", ".a", ""])
def test_a_class_that_no_folder_can_be_called_is_refused(camera, tmp_path, capsys, name):
    status, out, err = suggest(capsys, camera, "--copy-to", tmp_path / "sort", "--classes", "fine", name)
    assert (status, out) == (1, "")
    assert "no name that a folder of images can have" in err
    assert not (tmp_path / "sort").exists()


def test_images_that_cannot_be_read_are_named_and_the_others_suggested(camera, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    status, out, err = suggest(capsys, camera, bad, "-n", 30, "--format", "json")
    assert status == 1
    assert "bad.png" in err
    assert sorted(one["path"] for one in json.loads(out)) == sorted(map(str, camera.iterdir()))


def test_rounds_are_sorted_in_one_folder(camera, tmp_path, capsys):
    birds, model = tmp_path / "birds", str(tmp_path / "m.skxma")
    for round_, given in enumerate(([], ["--model", model], ["--model", model]), start=1):
        status, _, _ = suggest(capsys, camera, *given, "-n", 4, "--copy-to", birds)
        assert status == 0
        # what a file browser leaves behind is no image that waits for its class
        (birds / ".DS_Store").write_bytes(b"")
        sort_by_name(birds)
        assert main(["fit", str(birds), "--model", model, "--encoder", "tiny", "--force"]) == 0
        assert f"{4 * round_} images of" in capsys.readouterr().err
        numbers = sorted(int(file.name.partition("-")[0]) for file in birds.glob("*/*"))
        assert numbers == list(range(1, 4 * round_ + 1))
    (birds / "later.png").write_bytes(b"")
    status, _, err = suggest(capsys, camera, "--model", model, "--copy-to", birds)
    assert status == 1
    assert "later.png" in err


def test_what_lies_in_the_folder_already_is_not_suggested_again(camera, tmp_path, capsys):
    birds, bad = tmp_path / "birds", tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    first = suggest(capsys, camera, "-n", 4, "--copy-to", birds)[1].splitlines()
    sort_by_name(birds)
    # there is no model that could know them
    status, out, err = suggest(capsys, camera, bad, "-n", 11, "--copy-to", birds)
    assert "4 of 16 images lie in" in err
    assert status == 1
    assert sorted(first + out.splitlines()) == sorted(map(str, camera.iterdir()))
    sort_by_name(birds)
    assert "15 of 16" in suggest(capsys, camera, bad, "-n", 11, "--copy-to", birds)[2]
    status, _, err = suggest(capsys, camera, "--copy-to", birds)
    assert status == 1
    assert "all images lie there already" in err


def test_the_commands_after_it_encode_nothing_again(camera, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "cache"))
    birds, model = tmp_path / "birds", str(tmp_path / "m.skxma")
    suggest(capsys, camera, "-n", 6, "--copy-to", birds)
    sort_by_name(birds)
    assert main(["fit", str(birds), "--model", model, "--encoder", "tiny"]) == 0
    encoded = []
    monkeypatch.setattr(EncodingJob, "fill", lambda job, keys, values: encoded.extend(keys))
    for command in (["report", model, "--pool", str(camera)], ["evaluate", model, str(birds)]):
        assert main(command) == 0
    assert not encoded


@pytest.mark.parametrize("command", ["suggest", "report"])
def test_a_search_is_asked_by_the_classifier_that_it_found(camera, tmp_path, capsys, command):
    emoji = load_emoji(as_paths=True)
    rows = [i for i, name in enumerate(emoji.target) if name in NAMES and emoji.sets[i] in ("noto", "noto-v1")]
    path = tmp_path / "search.joblib"
    search = GridSearchCV(XMAdapterClassifier("tiny"), {"templates": ["simple"]}, cv=2)
    joblib.dump(search.fit([emoji.images[i] for i in rows], emoji.target[rows]), path)
    words = [str(camera), "--model", str(path)] if command == "suggest" else [str(path), "--pool", str(camera)]
    assert main([command, *words, "-n", "2"]) == 0
    joblib.dump(make_pipeline(FunctionTransformer(), search.best_estimator_), path)
    assert main([command, *words, "-n", "2"]) == 1
    assert "holds a Pipeline" in capsys.readouterr().err


@pytest.mark.bad_input
def test_a_folder_of_weights_that_is_not_there_is_said_without_advice_for_a_model(camera, tmp_path, capsys):
    assert main(["suggest", str(camera), "--encoder", f"local-dir:{tmp_path / 'none'}"]) == 1
    err = capsys.readouterr().err
    assert "no such folder" in err
    assert "moved" not in err


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain", "report", "export", "benchmark"])
def test_a_second_encoder_is_refused_where_there_is_one(command, capsys):
    words = [] if command == "benchmark" else ["m.skxma"] if command == "report" else ["m.skxma", "x"]
    with pytest.raises(SystemExit):
        main([command, *words, "--encoder", "tiny", "--encoder", "photo"])
    assert "--encoder is given twice" in capsys.readouterr().err


@pytest.mark.bad_input
def test_what_cannot_be_done_is_said_before_anything_is_encoded(camera, tmp_path, capsys):
    status, _, err = suggest(capsys, camera, "--copy-to", camera)
    assert status == 1
    assert "Sort what is there, or name another" in err
    status, _, err = suggest(capsys, camera, "--copy-to", next(camera.iterdir()))
    assert status == 1
    assert "Name a folder" in err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        status, _, err = suggest(capsys, camera, "--copy-to", tmp_path / "new" / "sorted")
    assert status == 1
    assert f"{tmp_path} is no folder that can be written. Name another folder." in err
    (tmp_path / "empty").mkdir()
    status, _, err = suggest(capsys, tmp_path / "empty")
    assert status == 1
    assert "no images" in err
    with pytest.raises(SystemExit):
        suggest(capsys, camera, "--strategy", "best")
    assert "clusters" in capsys.readouterr().err
