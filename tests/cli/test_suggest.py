"""`skxma suggest` on a folder of unsorted images."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from skxma.cli.main import main
from skxma.datasets import load_emoji

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
    for copy in copies:
        label = re.match(r"\d-(\w+)-", copy.name)[1]
        (tmp_path / "birds" / label).mkdir(parents=True, exist_ok=True)
        copy.rename(tmp_path / "birds" / label / copy.name)
    model = str(tmp_path / "m.skxma")
    assert main(["fit", str(tmp_path / "birds"), "--model", model, "--encoder", "tiny"]) == 0
    status, out, _ = suggest(capsys, camera, "--model", model, "-n", 4, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert len(rows) == 4
    assert not {row["path"] for row in rows} & set(first)
    assert {row["class"] for row in rows} <= set(NAMES)
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_images_that_cannot_be_read_are_named_and_the_others_suggested(camera, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    status, out, err = suggest(capsys, camera, bad, "-n", 30, "--format", "json")
    assert status == 1
    assert "bad.png" in err
    assert sorted(one["path"] for one in json.loads(out)) == sorted(map(str, camera.iterdir()))


@pytest.mark.bad_input
def test_what_cannot_be_done_is_said_before_anything_is_encoded(camera, tmp_path, capsys):
    status, _, err = suggest(capsys, camera, "--copy-to", camera)
    assert status == 1
    assert "Name another one" in err
    (tmp_path / "empty").mkdir()
    status, _, err = suggest(capsys, tmp_path / "empty")
    assert status == 1
    assert "no images" in err
    status, _, err = suggest(capsys, camera, "--strategy", "best")
    assert status == 1
    assert "clusters" in err
