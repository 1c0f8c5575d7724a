import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

import skxma
from skxma import XMAdapterClassifier
from skxma.cli.main import main
from skxma.datasets import load_emoji

LABELS = ("bear", "fox", "poodle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of support and test images, and a model of the first."""
    root = tmp_path_factory.mktemp("evaluate")
    emoji = load_emoji(as_paths=True)
    for file, label, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if label in (*LABELS, "snail"):
            part = "test" if style in ("noto", "noto-v1") else "fit"
            if label == "snail" and part == "fit":
                continue
            target = root / part / label / f"{style}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    command = ["fit", str(root / "fit"), "--model", str(root / "m.skxma"), "--encoder", "tiny", "--no-memory"]
    assert main(command) == 0
    return root


def files(folder, labels=LABELS):
    return [(path, label) for label in labels for path in sorted((folder / "test" / label).iterdir())]


def test_figures_are_those_of_the_classifier(folder, capsys):
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test"), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    clf = skxma.load(folder / "m.skxma")
    paths, labels = zip(*files(folder), strict=True)
    predicted = clf.predict([str(path) for path in paths])
    accuracy, n = np.mean(predicted == np.array(labels)), len(paths)
    assert found["n_images"] == n
    assert found["accuracy"] == pytest.approx(accuracy)
    # Wilson's interval: the shares p that lie within z of the one that was seen, in units of their own error
    z = NormalDist().inv_cdf(0.95)
    for end in found["accuracy_interval"]:
        assert end == pytest.approx(accuracy) or (end - accuracy) ** 2 == pytest.approx(z**2 * end * (1 - end) / n)
    matrix = confusion_matrix(labels, predicted, labels=list(LABELS))
    cells = {(row["class"], row["predicted"]): row["images"] for row in found["confusion"]}
    assert cells == {(LABELS[i], LABELS[j]): matrix[i, j] for i, j in np.argwhere(matrix)}
    # the class that the model does not know is named, and its images count for nothing
    assert "snail" in err
    assert found["unknown_labels"] == {"snail": 2}


def test_a_table_names_every_class_and_the_calibration(folder, capsys):
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test")]) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in LABELS)
    assert "accuracy" in out
    assert "calibration error" in out


def test_comma_separated_values_can_be_read_back(folder, capsys):
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test"), "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert len({len(row) for row in rows}) == 1
    assert rows[0] == ["figure", "class", "predicted", "value"]
    assert {row[1] for row in rows if row[0] == "recall"} == set(LABELS)


def test_a_table_of_images_is_evaluated_too(folder, capsys):
    table = folder / "test.csv"
    table.write_text("file;category\n" + "".join(f"{path};{label}\n" for path, label in files(folder)))
    assert main(["evaluate", str(folder / "m.skxma"), str(table), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_images"] == len(files(folder))


def test_the_confusion_matrix_is_drawn(folder, tmp_path, capsys):
    figure = tmp_path / "confusion.png"
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test"), "--plot", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.bad_input
def test_a_missing_matplotlib_is_named_before_any_work(folder, tmp_path, capsys, monkeypatch):
    for name in ["matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("skxma.cli._evaluate.load_model", lambda path, **_: pytest.fail("the model was loaded first"))
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test"), "--plot", str(tmp_path / "c.png")]) == 1
    assert "skxma[plot]" in capsys.readouterr().err


@pytest.mark.bad_input
def test_labels_of_which_the_model_knows_none_are_refused(folder, tmp_path, capsys):
    for label in ("otter", "seal"):
        (tmp_path / label).mkdir()
        shutil.copy(files(folder)[0][0], tmp_path / label / "a.png")
    assert main(["evaluate", str(folder / "m.skxma"), str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "otter" in err
    assert "bear" in err


def test_a_fit_reports_its_left_out_accuracy(folder, tmp_path, capsys):
    command = ["fit", str(folder / "fit"), "--model", str(tmp_path / "m.skxma"), "--encoder", "tiny", "--no-memory"]
    assert main(command) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left-out accuracy")]
    clf = skxma.load(tmp_path / "m.skxma")
    assert f"{clf.left_out_score_:.1%}" in line
    assert "{:.1%} to {:.1%}".format(*clf.left_out_interval_) in line


def test_a_wide_interval_has_no_center(folder, tmp_path, capsys):
    for label in ("bear", "fox"):
        (tmp_path / "few" / label).mkdir(parents=True)
        some = sorted((folder / "fit" / label).iterdir())[: 1 if label == "fox" else 2]
        for file in some:
            shutil.copy(file, tmp_path / "few" / label)
    command = ["fit", str(tmp_path / "few"), "--model", str(tmp_path / "m.skxma"), "--encoder", "tiny", "--no-memory"]
    assert main(command) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left-out accuracy")]
    low, high = skxma.load(tmp_path / "m.skxma").left_out_interval_
    assert high - low > 0.5
    assert line.startswith(f"left-out accuracy between {low:.1%} and {high:.1%} (90% interval)")


def test_a_table_whose_columns_have_other_names(folder, capsys):
    table = folder / "species.csv"
    table.write_text("where,species\n" + "".join(f"{path},{label}\n" for path, label in files(folder)))
    assert main(["evaluate", str(folder / "m.skxma"), str(table)]) == 1
    # what the message advises
    assert "--path-column" in capsys.readouterr().err
    columns = ["--path-column", "where", "--label-column", "species"]
    assert main(["evaluate", str(folder / "m.skxma"), str(table), *columns, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_images"] == len(files(folder))


@pytest.mark.bad_input
def test_an_unreadable_image_is_named_and_the_others_are_evaluated(folder, tmp_path, capsys):
    for path, label in files(folder):
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / label)
    (tmp_path / "fox" / "bad.png").write_bytes(b"no image")
    (tmp_path / "fox" / "._noto.png").write_bytes(b"hidden")
    assert main(["evaluate", str(folder / "m.skxma"), str(tmp_path), "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["n_images"] == len(files(folder))
    assert f"{tmp_path / 'fox' / 'bad.png'}: " in err
    assert "skipped 1 hidden" in err


def test_a_class_without_test_images_is_named(folder, tmp_path, capsys):
    shutil.copytree(folder / "test" / "bear", tmp_path / "bear")
    shutil.copytree(folder / "test" / "fox", tmp_path / "fox")
    assert main(["evaluate", str(folder / "m.skxma"), str(tmp_path), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["classes_without_images"] == ["poodle"]
    assert "without test images: poodle" in err
    assert {row["class"]: row["recall"] for row in found["classes"]}["poodle"] is None


def test_answers_of_a_model_that_refuses_images_are_evaluated(folder, capsys):
    paths = [str(path) for path, _ in files(folder)]
    support = sorted((folder / "fit").rglob("*.png"))
    clf = XMAdapterClassifier("tiny", false_rejection_rate=0.9, unknown_label="none of these")
    clf.fit([str(path) for path in support], [path.parent.name for path in support])
    clf.save(folder / "strict.skxma")
    n_refused = int((clf.predict(paths) == "none of these").sum())
    assert n_refused
    assert main(["evaluate", str(folder / "strict.skxma"), str(folder / "test"), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(row["images"] for row in found["confusion"] if row["predicted"] == "none of these") == n_refused
    assert found["accuracy"] <= 1 - n_refused / len(paths)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("none.skxma", "test", "There is no model .*skxma fit"),
        ("damaged.skxma", "test", "no model file"),
        ("m.skxma", "none", "no folder or table"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(folder, model, data, message, capsys):
    (folder / "damaged.skxma").write_bytes(b"no model")
    assert main(["evaluate", str(folder / model), str(folder / data)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert re.search(message, err)
    assert len(err.splitlines()) == 1


@pytest.mark.bad_input
@pytest.mark.parametrize("figure", ["c.docx", "absent/c.png"])
def test_a_figure_that_cannot_be_written_is_refused_before_any_work(folder, tmp_path, figure, capsys, monkeypatch):
    monkeypatch.setattr("skxma.cli._evaluate.load_model", lambda path, **_: pytest.fail("the model was loaded first"))
    assert main(["evaluate", str(folder / "m.skxma"), str(folder / "test"), "--plot", str(tmp_path / figure)]) == 1
    assert Path(figure).name in capsys.readouterr().err
