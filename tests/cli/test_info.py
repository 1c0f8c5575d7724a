import json
import shutil

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from small_models import write_timm

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier
from skxma.cli.main import main
from skxma.datasets import load_emoji

SHOTS = {"bear": 2, "crown": 3, "fox": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images and a model of it."""
    root = tmp_path_factory.mktemp("info")
    emoji = load_emoji(as_paths=True)
    for label, shots in SHOTS.items():
        (root / "fit" / label).mkdir(parents=True)
        of_label = [file for file, its in zip(emoji.images, emoji.target, strict=True) if its == label]
        for i, file in enumerate(of_label[:shots]):
            shutil.copy(file, root / "fit" / label / f"{i}.png")
    command = ["fit", str(root / "fit"), "--model", str(root / "m.skxma"), "--encoder", "tiny", "--no-memory"]
    assert main(command) == 0
    return root


def describe(path, capsys):
    """What `skxma info` prints about a model as JSON."""
    assert main(["info", str(path), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def few_images():
    emoji = load_emoji()
    kept = np.isin(emoji.target, list(SHOTS))
    return [image for image, one in zip(emoji.images, kept, strict=True) if one], emoji.target[kept]


def test_a_model_is_described(folder, capsys):
    found = describe(folder / "m.skxma", capsys)
    clf = skxma.load(folder / "m.skxma")
    assert found["encoder"] == "tiny"
    assert found["encoder_fingerprint"] == clf.encoder_fingerprint_
    assert found["written_by"] == f"skxma {skxma.__version__}"
    assert found["bytes"] == (folder / "m.skxma").stat().st_size
    assert {row["class"]: row["shots"] for row in found["classes"]} == SHOTS
    assert [row["names"] for row in found["classes"]] == [[label] for label in SHOTS]
    assert found["alpha"] == pytest.approx(clf.alpha_)
    assert found["left_out_accuracy"]["value"] == clf.left_out_score_
    assert found["left_out_accuracy"]["interval"] == clf.left_out_interval_.tolist()


def test_the_table_says_the_same(folder, capsys):
    found = describe(folder / "m.skxma", capsys)
    assert main(["info", str(folder / "m.skxma")]) == 0
    head, classes = capsys.readouterr().out.split("\n\n")
    rows = dict(line.split(maxsplit=1) for line in head.splitlines())
    assert rows["classifier"] == "XMAdapterClassifier"
    assert rows["images"] == "9 of 3 classes"
    share = found["left_out_accuracy"]
    assert f"{share['value']:.1%}" in head
    assert "{:.1%} to {:.1%}".format(*share["interval"]) in head
    assert [line.split() for line in classes.splitlines()[1:4]] == [[k, k, str(n)] for k, n in SHOTS.items()]


def test_a_doubtful_label_is_named_by_its_path(tmp_path, capsys):
    emoji = load_emoji(as_paths=True)
    given = [(file, label) for file, label in zip(emoji.images, emoji.target, strict=True) if label in SHOTS]
    last_crown = max(i for i, (_, label) in enumerate(given) if label == "crown")
    for i, (file, label) in enumerate(given):
        # one crown among the bears
        target = tmp_path / "fit" / ("bear/wrong.png" if i == last_crown else f"{label}/{i}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    command = ["fit", str(tmp_path / "fit"), "--encoder", "tiny", "--no-memory", "--model"]
    assert main([*command, str(tmp_path / "m.skxma")]) == 0
    assert main([*command, str(tmp_path / "nameless.skxma"), "--no-paths"]) == 0
    capsys.readouterr()
    (doubt,) = describe(tmp_path / "m.skxma", capsys)["doubtful_labels"]
    assert "wrong" in doubt["path"]
    assert (doubt["class"], doubt["suggested"]) == ("bear", "crown")
    assert main(["info", str(tmp_path / "m.skxma")]) == 0
    assert f"{doubt['path']}, bear, rather crown" in capsys.readouterr().out
    # where the paths were left out, the sample's number
    assert main(["info", str(tmp_path / "nameless.skxma")]) == 0
    assert f"number {doubt['sample']} of the fit" in capsys.readouterr().out


def test_nothing_is_encoded_and_no_weights_are_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr(CLIPEncoder, "_load", lambda self: pytest.fail("weights were loaded"))
    assert main(["info", str(folder / "m.skxma")]) == 0


def test_models_of_embeddings_of_rivals_and_in_pipelines_are_described(tmp_path, capsys):
    images, y = few_images()
    X = np.asarray(CLIPEncoder("tiny").encode_image(images))
    XMAdapterClassifier("precomputed").fit(X, y).save(tmp_path / "embeddings.skxma")
    assert describe(tmp_path / "embeddings.skxma", capsys)["encoder"] == "precomputed"
    TipAdapterClassifier("tiny").fit(images, y).save(tmp_path / "rival.skxma")
    rival = describe(tmp_path / "rival.skxma", capsys)
    assert (rival["classifier"], rival["left_out_accuracy"]) == ("TipAdapterClassifier", None)
    joblib.dump(make_pipeline("passthrough", XMAdapterClassifier("tiny")).fit(images, y), tmp_path / "p.joblib")
    piped = describe(tmp_path / "p.joblib", capsys)
    assert (piped["classifier"], piped["written_by"]) == ("XMAdapterClassifier", None)
    assert piped["n_support_images"] == len(images)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.skxma", "There is no model"),
        ("damaged.skxma", "no model file"),
        ("damaged.joblib", "no model of skxma"),
        ("pickle.pkl", "pickle by its name"),
        ("other.joblib", "LogisticRegression"),
    ],
)
def test_what_is_no_model_is_said_in_a_line(tmp_path, name, message, capsys):
    if "absent" not in name:
        (tmp_path / name).write_bytes(b"no model")
    if name == "other.joblib":
        joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / name)
    assert main(["info", str(tmp_path / name)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_model_of_two_encoders_names_both(folder, tmp_path, capsys):
    timm = f"timm:{write_timm(tmp_path / 'timm')}"
    command = ["fit", str(folder / "fit"), "--model", str(tmp_path / "m.skxma"), "--no-memory"]
    assert main([*command, "--encoder", "tiny", "--encoder", timm]) == 0
    assert skxma.load(tmp_path / "m.skxma").encoder == ["tiny", timm]
    capsys.readouterr()
    assert describe(tmp_path / "m.skxma", capsys)["encoder"] == f"tiny + {timm}"
    assert main(["predict", str(tmp_path / "m.skxma"), str(folder / "fit")]) == 0
    pool = next(path for path in (folder / "fit").iterdir() if path.is_dir())
    assert main([*command, "--force", "--encoder", "tiny", "--encoder", timm, "--unlabeled", str(pool)]) == 0
    assert "images without labels" in capsys.readouterr().err
    assert main(["suggest", str(pool), "-n", "2", "--no-memory", "--encoder", "tiny", "--encoder", timm]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    model = ["--model", str(tmp_path / "m.skxma")]
    assert main(["suggest", str(pool), "-n", "2", "--no-memory", *model, "--encoder", "tiny", "--encoder", timm]) == 1
    assert "one --encoder" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "m.skxma"), str(folder / "fit"), "--encoder", "tiny"]) == 1
    assert "2 encoders, and --encoder names one" in capsys.readouterr().err
    assert main(["suggest", str(pool), "--no-memory", "--encoder", "tiny", "--encoder", "tiny"]) == 1
    assert "'tiny' twice" in capsys.readouterr().err
    pytest.importorskip("onnx")
    assert main(["export", str(tmp_path / "m.skxma"), str(tmp_path / "m.onnx")]) == 1
    assert "--part model needs one encoder, and this classifier was fitted with several; pass --part head" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib"])
def test_a_model_file_under_the_name_of_a_pickle_is_none(tmp_path, capsys, name):
    emoji = load_emoji(as_paths=True)
    clf = XMAdapterClassifier("tiny").fit(emoji.images[:10], emoji.target[:10])
    clf.save(tmp_path / name)
    assert main(["info", str(tmp_path / name), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["written_by"].endswith(skxma.__version__)
    assert main(["predict", str(tmp_path / name), str(emoji.images[0])]) == 0
