"""What the command line takes from folders, tables, pipes and names of models, and what it says of the rest."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from small_clip import make_model_folder

import skxma
from skxma import EmbeddingStore
from skxma.cli.main import main
from skxma.datasets import load_emoji

FIT = ["--encoder", "tiny", "--no-memory"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Three images each of a bear and a fox, one of each to ask about, and a model."""
    root = tmp_path_factory.mktemp("two")
    emoji = load_emoji(as_paths=True)
    for path, name, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if name in ("bear", "fox") and style != "noto-v1":
            place = root / "new" if style == "noto" else root / "d" / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / f"{name}-{style}.png")
    assert main(["fit", str(root / "d"), "--model", str(root / "m.skxma"), *FIT]) == 0
    return root


@pytest.fixture
def root(original, tmp_path, monkeypatch):
    """A copy to change, as the working directory."""
    shutil.copytree(original, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def run(*words, **options):
    command = [sys.executable, "-m", "skxma", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def spoil(folder):
    """Add what systems leave in folders."""
    (folder / "._a.png").write_bytes(b"Mac OS X")
    (folder / "Thumbs.db").write_bytes(b"")
    (folder / ".ipynb_checkpoints").mkdir()
    for name in ("bear-emojione.png", "fox-emojione.png"):
        for found in (folder.parent / "d").rglob(name):
            if ".ipynb" not in str(found):
                shutil.copy(found, folder / ".ipynb_checkpoints")


def test_hidden_and_service_files_are_skipped_and_counted_everywhere(root, capsys):
    for place in (root / "d" / "bear", root / "new"):
        spoil(place)
    assert main(["fit", "d", "--unlabeled", "new", "--model", "n.skxma", *FIT]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "skxma: d: skipped 3 hidden or service files (a folder counts once)"
    assert said[1] == "skxma: new: skipped 3 hidden or service files (a folder counts once)"
    assert "6 images of 2 classes; saved n.skxma" in said
    assert main(["predict", "m.skxma", "new"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err == "skxma: new: skipped 3 hidden or service files (a folder counts once)\n"
    assert main(["explain", "m.skxma", "new/bear-noto.png", "--support", "d"]) == 0
    assert "skxma: d: skipped 3" in capsys.readouterr().err
    assert main(["prompts", "d"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "bear"
    assert "skxma: d: skipped 3" in captured.err


def test_a_class_that_is_left_out_is_named(root, capsys):
    (root / "d" / "owl").mkdir()
    (root / "d" / "owl" / "IMG_1.HEIC").write_bytes(b"")
    assert main(["fit", "d", "--model", "n.skxma", *FIT]) == 0
    said = capsys.readouterr().err
    assert "skxma: Left out the class owl: its folder has no images that are read, but 1 .heic." in said
    assert "convert them to JPEG or PNG" in said


def test_train_is_taken_and_said(root, capsys):
    (root / "set").mkdir()
    shutil.copytree(root / "d", root / "set" / "test")
    (root / "d").rename(root / "set" / "train")
    assert main(["fit", "set", "--model", "n.skxma", *FIT]) == 0
    said = capsys.readouterr().err
    assert "skxma: Took the classes of set/train. Left out: test (6 images)." in said
    assert skxma.load("n.skxma").classes_.tolist() == ["bear", "fox"]


def test_a_table_of_excel_is_read_and_its_columns_may_be_named(root, capsys):
    rows = ["Datei;Tier", *(f"{path};{path.parent.name}\xe9" for path in sorted(Path("d").rglob("*.png"))), ";"]
    (root / "t.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    assert main(["fit", "t.csv", "--model", "n.skxma", *FIT]) == 1
    assert "with --path-column NAME" in capsys.readouterr().err
    assert main(["fit", "t.csv", "--path-column", "Datei", "--label-column", "tier", "--model", "n.skxma", *FIT]) == 0
    assert "Windows-1252" in capsys.readouterr().err
    assert skxma.load("n.skxma").classes_.tolist() == ["bear\xe9", "fox\xe9"]
    assert main(["prompts", "t.csv", "--path-column", "Datei", "--label-column", "Tier"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "bear\xe9"


def test_an_image_is_no_table(root, capsys):
    assert main(["fit", "new/bear-noto.png", "--model", "n.skxma", *FIT]) == 1
    assert "new/bear-noto.png is an image, not a table" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["n.pkl", "n.pickle", "n.PKL"])
def test_a_pickle_under_another_name_is_neither_written_nor_opened(root, capsys, name):
    assert main(["fit", "d", "--model", name, *FIT]) == 1
    assert "name it n.skxma, or n.joblib for a pickle" in capsys.readouterr().err
    joblib.dump(Trap(), name)
    assert main(["predict", name, "new"]) == 1
    said = capsys.readouterr().err
    assert "runs whatever code" in said
    assert "rename it to n.joblib" in said
    assert not (root / "sprung").exists()


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_a_model_that_is_there_is_replaced_with_force_alone(root, capsys):
    before = (root / "m.skxma").read_bytes()
    assert main(["fit", "absent", "--model", "m.skxma", *FIT]) == 1
    assert capsys.readouterr().err == (
        "skxma: m.skxma is there already. Name another file, or replace it with --force.\n"
    )
    assert (root / "m.skxma").read_bytes() == before
    assert main(["fit", "d", "--model", "m.skxma", "--force", "--names", "n.json", *FIT]) == 1
    (root / "n.json").write_text('{"bear": "ours"}')
    assert main(["fit", "d", "--model", "m.skxma", "--force", "--names", "n.json", *FIT]) == 0
    assert skxma.load("m.skxma").class_names_[0] == "ours"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
@pytest.mark.parametrize("end", [b"\n", b"\0", b"\r\n"])
def test_paths_come_from_a_pipe_as_the_bytes_that_they_are(root, end):
    name = b"ren\xe9.png"
    shutil.copy("new/fox-noto.png", os.fsdecode(name))
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = run("predict", "m.skxma", "-", input=b"new/bear-noto.png" + end + name + end, env=environment)
    assert done.stderr == b""
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [b"new/bear-noto.png", name]
    done = run("predict", "m.skxma", "-", "--format", "json", input=name, env=environment)
    assert os.fsencode(json.loads(done.stdout)[0]["path"]) == name


def test_a_class_that_the_terminal_cannot_show_is_escaped(root):
    (root / "d" / "fox").rename(root / "d" / "ren\xe9")
    assert main(["fit", "d", "--model", "n.skxma", *FIT]) == 0
    done = run("predict", "n.skxma", "new", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert b"ren\\xe9" in done.stdout


@pytest.mark.weekly
@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes streams so")
def test_closed_streams_cost_no_more_than_what_they_were_for(root):
    def shell(words, redirection):
        command = f"{sys.executable} -m skxma {words} {redirection}"
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    fit = "fit d --encoder tiny --no-memory --model"
    for i, redirection in enumerate((">&-", "2>&-", "<&- >&- 2>&-")):
        name = f"closed{i}.skxma"
        done = shell(f"{fit} {name}", redirection)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0
        assert skxma.load(name).classes_.tolist() == ["bear", "fox"]
    done = shell("predict m.skxma -", "<&-")
    assert done.returncode == 1
    assert done.stderr == (
        "skxma: - stands for paths on standard input, which is closed. Name images or folders instead.\n"
    )
    done = shell("predict m.skxma new", ">&-")
    assert (done.returncode, done.stderr) == (
        1,
        "skxma: Standard output is closed, so the answers are lost. Redirect it to a file.\n",
    )
    done = shell("predict m.skxma new", "2>&-")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disks_behind_streams_are_told_by_the_status(root):
    def shell(words):
        command = f"{sys.executable} -m skxma {words}"
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    done = shell("predict m.skxma new >/dev/full")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr
    done = shell("fit d --encoder tiny --no-memory --model full.skxma 2>/dev/full")
    assert done.returncode == 0
    assert (root / "full.skxma").exists()


def test_embeddings_are_kept_from_run_to_run_unless_told_otherwise(root, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "kept"))
    fit = ["fit", "d", "--encoder", "tiny", "--model"]
    assert main([*fit, "n.skxma", "--no-memory"]) == 0
    assert not (tmp_path / "kept").exists()
    assert main([*fit, "n.skxma", "--force"]) == 0
    # six images, and the texts of two classes
    assert EmbeddingStore(tmp_path / "kept").info()["n_embeddings"] >= 8
    assert skxma.load("n.skxma").memory is None
    with pytest.raises(SystemExit):
        main([*fit, "n.skxma", "--no-memory", "--memory", "x"])


def test_a_cache_that_cannot_be_written_costs_no_fit(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning):
        assert main(["fit", "d", "--encoder", "tiny", "--model", "n.skxma"]) == 0
    assert (root / "n.skxma").exists()


def test_a_local_encoder_is_found_from_anywhere_and_may_move(root, tmp_path, monkeypatch, capsys):
    make_model_folder(root / "clip", seed=0)
    assert main(["fit", "d", "--model", "n.skxma", "--encoder", "local-dir:clip", "--no-memory"]) == 0
    assert skxma.load("n.skxma").encoder == f"local-dir:{root / 'clip'}"
    capsys.readouterr()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    words = ["predict", str(root / "n.skxma"), str(root / "new")]
    assert main([*words, "--device", "cpu"]) == 0
    wanted = capsys.readouterr().out
    (root / "clip").rename(root / "moved")
    assert main(words) == 1
    assert "say where to with --encoder local-dir:DIR" in capsys.readouterr().err
    assert main([*words, "--encoder", f"local-dir:{root / 'moved'}"]) == 0
    assert capsys.readouterr().out == wanted
    monkeypatch.chdir(root)
    assert main([*words, "--encoder", "local-dir:moved"]) == 0
    assert main(["explain", "n.skxma", "new/fox-noto.png", "--encoder", "local-dir:moved", "--device", "cpu"]) == 0
    capsys.readouterr()
    make_model_folder(root / "other", seed=1)
    assert main([*words, "--encoder", "local-dir:other"]) == 1
    said = capsys.readouterr().err
    assert "was fitted with other weights" in said
    assert "set_params" not in said


def test_a_wrapped_model_says_that_its_encoder_is_not_to_be_set(root, capsys):
    from sklearn.pipeline import make_pipeline

    joblib.dump(make_pipeline(skxma.load("m.skxma")), "wrapped.joblib")
    code = main(["predict", "wrapped.joblib", "new", "--encoder", "tiny"])
    said = capsys.readouterr().err
    assert code == 1
    assert "takes no --encoder" in said


def test_the_module_runs_as_the_command_does(root):
    done = run("predict", "m.skxma", "new", "--format", "csv", text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "path,class,probability"
    assert run("fit").returncode == 2
    assert run("--version", text=True).stdout == f"skxma {skxma.__version__}\n"


def test_predictions_do_not_depend_on_where_embeddings_are_kept(root, monkeypatch, tmp_path):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "kept"))
    for name in ("first", "second"):
        assert main(["fit", "d", "--encoder", "tiny", "--model", f"{name}.skxma"]) == 0
    asked = ["new/bear-noto.png", "new/fox-noto.png"]
    wanted = skxma.load("m.skxma").predict_proba(asked)
    for name in ("first", "second"):
        found = skxma.load(f"{name}.skxma").predict_proba(asked)
        # in half precision the embeddings of torch 2.6 depend on the batch in their last digits
        np.testing.assert_allclose(found, wanted, atol=5e-3)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "d", "--model", "n.skxma", "--encoder", "precomputed"],
        ["suggest", "new", "--encoder", "precomputed"],
        ["suggest", "new", "--encoder", "tiny", "--encoder", "precomputed"],
        ["predict", "m.skxma", "new", "--encoder", "precomputed"],
        ["app", "--encoder", "precomputed", "--port", "0"],
    ],
)
def test_embeddings_are_refused_in_the_words_of_the_command_line(root, capsys, words):
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--encoder precomputed stands for embeddings, and commands take images" in said
    assert "X as" not in said


@pytest.mark.parametrize("name", ["", "  ", ["bear", " "]])
def test_a_blank_name_is_refused_by_its_file(root, capsys, name):
    (root / "names.json").write_text(json.dumps({"bear": name}))
    assert main(["fit", "d", "--model", "n.skxma", "--names", "names.json", *FIT]) == 1
    said = capsys.readouterr().err
    assert "names.json: 'bear' has a blank name" in said
    assert "class_names" not in said
