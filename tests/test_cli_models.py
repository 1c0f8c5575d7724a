import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skxma import EmbeddingStore
from skxma.cli import main
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures each of three things in pics/, one each and a bad one in new/."""
    root = tmp_path_factory.mktemp("emoji")
    emoji = load_emoji(as_paths=True)
    for path, name, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if name in emoji.target_names[:3]:
            place = root / "new" if style == "noto" else root / "pics" / name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}-{style}.png").write_bytes(Path(path).read_bytes())
    (root / "bad.png").write_bytes(b"no picture")
    assert main(["fit", str(root / "pics"), "--model", str(root / "m.joblib"), "--encoder", "tiny"]) == 0
    return root


def test_fit_saves_a_model_alone(folder, capsys):
    assert main(["fit", str(folder / "pics"), "--model", str(folder / "m.joblib"), "--encoder", "tiny"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12 pictures of 3 classes" in captured.err
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith((".", "m"))) == ["m.joblib"]


def test_pictures_without_labels_are_learned_from(folder, capsys):
    target = str(folder / "pooled.joblib")
    words = ["fit", str(folder / "pics"), "--model", target, "--encoder", "tiny", "--unlabeled", str(folder / "new")]
    assert main(words) == 0
    assert "of 3 pictures without labels" in capsys.readouterr().err
    assert main(["explain", target, str(next((folder / "new").iterdir())), "--support", str(folder / "pics")]) == 0
    assert main([*words[:-1], str(folder / "pics" / "nothing.txt")]) == 1
    capsys.readouterr()
    Path(target).unlink()


def test_predictions_as_table_csv_and_json_agree(folder, capsys):
    def run(form):
        assert main(["predict", str(folder / "m.joblib"), str(folder / "new"), "--top", "2", "--format", form]) == 0
        return capsys.readouterr().out

    rows = list(csv.DictReader(io.StringIO(run("csv"))))
    assert len(rows) == 6
    found = json.loads(run("json"))
    assert [a["class"] for one in found for a in one["answers"]] == [row["class"] for row in rows]
    table = run("table").splitlines()
    assert all(line.endswith(row["class"]) for line, row in zip(table, rows, strict=True))
    best = rows[::2]
    right = [row["class"].replace("_", " ") in row["path"] for row in best]
    assert np.mean(right) == 1
    assert all(float(a["probability"]) >= float(b["probability"]) for a, b in zip(best, rows[1::2], strict=True))


def test_a_bad_picture_is_named_and_the_others_are_answered(folder, capsys):
    asked = [str(folder / "bad.png"), *map(str, sorted((folder / "new").iterdir())), str(folder / "absent.png")]
    assert main(["predict", str(folder / "m.joblib"), *asked]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert any("bad.png" in line for line in lines)
    assert any("absent.png" in line for line in lines)


def test_pictures_from_a_pipe_and_into_a_closed_one(folder):
    names = "\n".join(str(path) for path in (folder / "new").iterdir())
    command = [sys.executable, "-m", "skxma.cli", "predict", str(folder / "m.joblib"), "-"]
    done = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    shell = f"{' '.join(command[:-1])} {folder / 'new'} --top 3 | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_an_answer_is_explained_by_named_pictures(folder, capsys):
    query = str(next((folder / "new").iterdir()))
    assert main(["explain", str(folder / "m.joblib"), query, "--support", str(folder / "pics"), "--top", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "zero-shot" in lines[0]
    assert sum(str(folder / "pics") in line for line in lines) == 4


def test_prompts_show_names_as_words(folder, capsys):
    assert main(["prompts", str(folder / "pics"), "--templates", "bare"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "_" in first
    assert second.strip() == first.replace("_", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "{}/absent.joblib", "x.png"], "There is no model"),
        (["predict", "{}/bad.png", "x.png"], "is no model of skxma"),
        (["fit", "{}/absent", "--model", "{}/n.joblib"], "no folder or table"),
        (["fit", "{}/pics", "--model", "{}/absent/n.joblib"], "make it first"),
        (["explain", "{}/m.joblib", "{}/bad.png"], "bad.png"),
    ],
)
def test_errors_are_a_line(folder, capsys, words, said):
    assert main([word.format(folder) for word in words]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_the_cache_is_shown_and_cleared(tmp_path, capsys):
    store = EmbeddingStore(tmp_path)
    store.put_many("space", [b"a", b"b"], np.ones((2, 3), dtype=np.float32))
    assert main(["cache", "info", "--path", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "embeddings  2" in printed
    assert "space" in printed
    assert main(["cache", "clear", "--path", str(tmp_path)]) == 0
    assert "removed 2 embeddings" in capsys.readouterr().out
    assert store.info()["n_embeddings"] == 0
