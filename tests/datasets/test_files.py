"""Loaders of users' folders, tables and feature files, and of the CoOp data sets, on miniature trees."""

import json

import numpy as np
import pytest

from skxma.datasets._coop import AIRCRAFT, IMAGENET_LAYOUT, IMAGENET_SHIFTS, SPLIT, load_coop
from skxma.datasets._features import load_features, save_features
from skxma.datasets._folders import load_image_folder


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folders_are_classes(tmp_path):
    touch(tmp_path / "cat" / "2.jpg", tmp_path / "cat" / "1.PNG", tmp_path / "dog" / "deep" / "3.webp")
    touch(
        tmp_path / "dog" / "notes.txt", tmp_path / ".hidden" / "4.jpg", tmp_path / "dog" / "._5.jpg", tmp_path / "6.jpg"
    )
    data = load_image_folder(tmp_path)
    assert [path.split("/")[-1] for path in data.paths] == ["1.PNG", "2.jpg", "3.webp"]
    assert data.target.tolist() == ["cat", "cat", "dog"]
    assert data.target_names.tolist() == ["cat", "dog"]
    assert data.groups is None
    assert data.name == tmp_path.name


def test_a_table_names_paths_labels_and_groups(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "sub" / "b.jpg", tmp_path / "c.jpg")
    table = tmp_path / "pets.csv"
    table.write_text("label,path,group\ndog,a.jpg,1\ncat,sub/b.jpg,2\ncat,c.jpg,2\n", encoding="utf-8-sig")
    data = load_image_folder(table)
    assert data.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "sub" / "b.jpg"), str(tmp_path / "c.jpg")]
    assert data.target.tolist() == ["dog", "cat", "cat"]
    assert data.groups.tolist() == ["1", "2", "2"]
    assert data.name == "pets"
    table.write_text(f"path,label\n{tmp_path / 'a.jpg'},dog\nc.jpg,cat\n")
    assert load_image_folder(table).groups is None


def test_a_folder_without_classes_or_none_at_all(tmp_path):
    with pytest.raises(ValueError, match="one folder per class"):
        load_image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder or table .*gone"):
        load_image_folder(tmp_path / "gone")


def test_feature_files_come_back_as_they_were_saved(tmp_path):
    rng = np.random.default_rng(0)
    given = {
        "text_features": rng.standard_normal((3, 4)),
        "class_names": np.array(["a", "b", "c"], dtype=object),
        "groups": np.arange(6),
        "vocabulary_features": None,
    }
    images = rng.standard_normal((6, 4))
    save_features(tmp_path / "set.npz", images, [0, 1, 2] * 2, **given)
    data = load_features(tmp_path / "set.npz")
    assert data.name == "set"
    assert data.data.dtype == np.float32
    assert np.allclose(data.data, images, atol=1e-2)
    assert np.allclose(data.text_features, given["text_features"], atol=1e-2)
    assert data.class_names.tolist() == ["a", "b", "c"]
    assert data.target.tolist() == [0, 1, 2] * 2
    assert data.groups.tolist() == list(range(6))
    assert data.vocabulary_features is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image_features": np.ones((2, 3))}, "lacks labels"),
        ({"image_features": np.ones((2, 3)), "labels": [0]}, r"labels of shape \(1,\)"),
        ({"image_features": np.ones((2, 3)), "labels": [0, 1], "text_features": np.ones((2, 4))}, "images of width 3"),
        (
            {"image_features": np.ones((1, 2)), "labels": [0], "text_features": np.ones((2, 2)), "class_names": ["a"]},
            "2 text_features for 1 class_names",
        ),
        ({"image_features": np.ones((2, 3)), "labels": [0, 1], "groups": [0]}, "groups of shape"),
        ({"image_features": np.ones((1, 2)), "labels": np.array([{}], dtype=object)}, "plain arrays"),
    ],
)
def test_a_wrong_feature_file_says_what_is_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_features(tmp_path / "f.npz")


def test_a_missing_feature_file_and_no_npz_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature file"):
        load_features(tmp_path / "gone.npz")
    (tmp_path / "f.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        load_features(tmp_path / "f.npz")
    with pytest.raises(ValueError, match="no nonsense"):
        save_features(tmp_path / "g.npz", np.ones((1, 2)), [0], nonsense=[1])


def plant_split(root, name, n_classes=3):
    """Write a miniature of one of the data sets that have a split file."""
    layout = SPLIT[name]
    folder = root / layout.folder
    rows = {
        fold: [[f"{fold}/{label}.jpg", label, f"thing {label}"] for label in range(n_classes)]
        for fold in ("train", "val", "test")
    }
    touch(*(folder / layout.images / path for held in rows.values() for path, _, _ in held))
    (folder / f"split_zhou_{layout.split}.json").write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize("name", sorted(SPLIT))
def test_split_files_give_paths_labels_and_folds(tmp_path, name):
    plant_split(tmp_path, name)
    data = load_coop(name, tmp_path)
    assert data.class_names == ["thing 0", "thing 1", "thing 2"]
    assert data.target.tolist() == [0, 1, 2] * 3
    assert data.fold.tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert all((tmp_path / path).is_file() for path in data.paths)
    assert "{}" in data.template
    assert data.name == name


@pytest.mark.parametrize(("n_classes", "base", "novel"), [(3, [0, 1], [2]), (4, [0, 1], [2, 3])])
def test_base_and_novel_are_halves_of_the_labels(tmp_path, n_classes, base, novel):
    plant_split(tmp_path, "dtd", n_classes)
    for half, labels in (("base", base), ("novel", novel)):
        data = load_coop("dtd", tmp_path, classes=half)
        assert sorted(set(data.target)) == labels
        assert len(data.class_names) == n_classes
        assert data.name == f"dtd/{half}"


def test_aircraft_has_lists_of_its_own(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    touch(folder / "images" / "7.jpg", folder / "images" / "8.jpg", folder / "images" / "9.jpg")
    (folder / "variants.txt").write_text("707-320\nDC-3 A\n")
    for fold, line in (("train", "7 DC-3 A"), ("val", "8 707-320"), ("test", "9 DC-3 A")):
        (folder / f"images_variant_{fold}.txt").write_text(line + "\n")
    data = load_coop("fgvc_aircraft", tmp_path)
    assert data.class_names == ["707-320", "DC-3 A"]
    assert data.target.tolist() == [1, 0, 1]
    assert data.paths[0].endswith("images/7.jpg")
    (folder / "images_variant_val.txt").write_text("8 Concorde\n")
    with pytest.raises(ValueError, match="'8 Concorde'"):
        load_coop("fgvc_aircraft", tmp_path)


NAMES = "n01 tench\nn02 gold fish\nn03 white shark\n"


def test_imagenet_is_folders_and_its_validation_images_are_the_test(tmp_path):
    folder = tmp_path / "imagenet"
    touch(*(folder / "images" / part / wnid / "x.JPEG" for part in ("train", "val") for wnid in ("n01", "n02", "n03")))
    (folder / "classnames.txt").write_text(NAMES)
    data = load_coop("imagenet", tmp_path)
    assert data.class_names == ["tench", "gold fish", "white shark"]
    assert data.fold.tolist() == ["train"] * 3 + ["test"] * 3
    assert data.target.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("name", "part", "folders"),
    [
        ("imagenet_v2", "imagenetv2/imagenetv2-matched-frequency-format-val", ["0", "2"]),
        ("imagenet_sketch", "imagenet-sketch/images", ["n01", "n03"]),
        ("imagenet_a", "imagenet-adversarial/imagenet-a", ["n01", "n03"]),
        ("imagenet_r", "imagenet-rendition/imagenet-r", ["n01", "n03"]),
    ],
)
def test_shifts_have_imagenets_labels(tmp_path, name, part, folders):
    touch(*(tmp_path / part / folder / "x.jpg" for folder in folders), tmp_path / part / "README.txt")
    touch(*(tmp_path / part / folder / "._x.jpg" for folder in folders), tmp_path / part / folders[0] / "Thumbs.db")
    (tmp_path / part.split("/")[0] / "classnames.txt").write_text(NAMES)
    data = load_coop(name, tmp_path)
    assert data.target.tolist() == [0, 2]
    assert data.class_names == ["tench", "gold fish", "white shark"]
    assert set(data.fold) == {"test"}


def test_eleven_data_sets_and_four_shifts():
    assert len({*SPLIT, *AIRCRAFT, *IMAGENET_LAYOUT}) == 11
    assert len(IMAGENET_SHIFTS) == 4


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dtd is not there.*DATASETS.md"):
        load_coop("dtd", tmp_path)
    folder = plant_split(tmp_path, "dtd")
    (folder / "images" / "train" / "0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train/0.jpg is not there"):
        load_coop("dtd", tmp_path)
    with pytest.raises(ValueError, match="no data set 'cats'"):
        load_coop("cats", tmp_path)
    with pytest.raises(ValueError, match="classes='some'"):
        load_coop("dtd", tmp_path, classes="some")


@pytest.mark.parametrize("text", ["{", '{"train": []}', '{"train": [[1]], "val": [], "test": []}', "[]"])
def test_a_broken_split_file_is_named(tmp_path, text):
    folder = plant_split(tmp_path, "dtd")
    (folder / "split_zhou_DescribableTextures.json").write_text(text)
    with pytest.raises(ValueError, match=r"DescribableTextures\.json is no split"):
        load_coop("dtd", tmp_path)


def test_labels_of_a_split_count_from_zero(tmp_path):
    folder = plant_split(tmp_path, "dtd")
    rows = {"train": [["train/0.jpg", 4, "x"]], "val": [], "test": []}
    (folder / "split_zhou_DescribableTextures.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="numbers its 1 classes"):
        load_coop("dtd", tmp_path)


def test_a_list_of_names_needs_names(tmp_path):
    touch(tmp_path / "imagenet" / "images" / "train" / "n01" / "x.jpg")
    (tmp_path / "imagenet" / "classnames.txt").write_text("n01\n")
    with pytest.raises(ValueError, match="'n01' without a class name"):
        load_coop("imagenet", tmp_path)
