"""Labeled images out of the containers of other libraries, each made by the library itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji, load_image_folder, load_labeled_images
from skxma.errors import ImageError

NAMES = ("bear", "fox", "snail")


@pytest.fixture(scope="module")
def emoji():
    """Paths and labels of a few emoji."""
    whole = load_emoji(as_paths=True)
    kept = np.isin(whole.target, NAMES)
    return [str(path) for path, one in zip(whole.images, kept, strict=True) if one], whole.target[kept]


@pytest.fixture(scope="module")
def expected(emoji):
    """Embeddings of these emoji, given as paths."""
    paths, labels = emoji
    return XMAdapterClassifier("tiny").fit(paths, labels).encode(paths)


def assert_fits(found, emoji, expected):
    labels = emoji[1]
    assert found.target.tolist() == labels.tolist()
    assert found.target_names.tolist() == sorted(NAMES)
    clf = XMAdapterClassifier("tiny").fit(found.images, found.target)
    np.testing.assert_allclose(clf.encode(found.images), expected, atol=1e-6)
    assert clf.classes_.tolist() == sorted(NAMES)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library, emoji, expected):
    module = pytest.importorskip(library)
    paths, labels = emoji
    frame = module.DataFrame({"id": range(len(paths)), "filename": list(paths), "species": labels.tolist()})
    assert_fits(load_labeled_images(frame), emoji, expected)
    renamed = module.DataFrame({"where": list(paths), "what": labels.tolist(), "group": ["a"] * len(paths)})
    found = load_labeled_images(renamed, image_column="where", label_column="what")
    assert_fits(found, emoji, expected)
    assert found.groups.tolist() == ["a"] * len(paths)


def test_paths_of_a_frame_are_relative_to_a_folder(emoji, tmp_path):
    pandas = pytest.importorskip("pandas")
    for i, path in enumerate(emoji[0][:4]):
        shutil.copy(path, tmp_path / f"{i}.png")
    frame = pandas.DataFrame({"path": [f"{i}.png" for i in range(4)], "label": emoji[1][:4]})
    assert load_labeled_images(frame, folder=tmp_path).images == [str(tmp_path / f"{i}.png") for i in range(4)]
    with pytest.raises(ImageError, match="4 of 4 images can't be read"):
        load_labeled_images(frame)


@pytest.mark.parametrize("of_paths", [False, True])
def test_a_split_of_hugging_face(of_paths, emoji, expected):
    # the folder of these tests has the same name, and no such module
    pytest.importorskip("datasets.features")
    import datasets

    paths, labels = emoji
    names = sorted(NAMES)
    columns = {"image": [str(path) for path in paths], "label": [names.index(label) for label in labels]}
    image = datasets.Value("string") if of_paths else datasets.Image()
    features = datasets.Features({"image": image, "label": datasets.ClassLabel(names=names)})
    split = datasets.Dataset.from_dict(columns, features=features)
    assert_fits(load_labeled_images(split), emoji, expected)
    assert_fits(load_labeled_images(split.with_format("torch")), emoji, expected)
    with pytest.raises(TypeError, match=r"pass data\['train'\]"):
        load_labeled_images(datasets.DatasetDict(train=split))
    with pytest.raises(TypeError, match="got a stream"):
        load_labeled_images(split.to_iterable_dataset())
    columns["label"][3] = -1
    with pytest.raises(ValueError, match=r"1 of 15 rows have no label, the first of them row 3"):
        load_labeled_images(datasets.Dataset.from_dict(columns, features=features))


def test_nothing_of_a_split_is_loaded_at_once(emoji, monkeypatch):
    # the folder of these tests has the same name, and no such module
    pytest.importorskip("datasets.features")
    import datasets

    split = datasets.Dataset.from_dict({"photo": emoji[0], "y": emoji[1].tolist()}).cast_column(
        "photo", datasets.Image()
    )
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("decoded"))
    found = load_labeled_images(split)
    assert len(found.images) == len(emoji[0])
    assert set(found.images[2]) == {"bytes", "path"}


def test_an_image_folder(emoji, expected, tmp_path):
    vision = pytest.importorskip("torchvision.datasets")
    for i, (path, label) in enumerate(zip(*emoji, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / label / f"{i:02}.png")
    folder = vision.ImageFolder(tmp_path, transform=lambda _: pytest.fail("opened"))
    found = load_labeled_images(folder)
    ours = load_image_folder(tmp_path)
    assert [Path(path) for path in found.images] == [Path(path) for path in ours.paths]
    assert found.target.tolist() == ours.target.tolist()
    some = load_labeled_images(torch.utils.data.Subset(folder, [4, 1]))
    assert list(some.images) == [found.images[4], found.images[1]]
    assert some.target.tolist() == found.target[[4, 1]].tolist()


class Pairs(torch.utils.data.Dataset):
    def __init__(self, paths, labels, transform=None):
        self.paths, self.labels, self.transform = paths, labels, transform
        self.classes = sorted(set(labels.tolist()))
        self.n_read = 0

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        self.n_read += 1
        image = Image.open(self.paths[row]).convert("RGB")
        label = torch.tensor(self.classes.index(self.labels[row]))
        return (image if self.transform is None else self.transform(image)), label


def test_a_map_style_data_set_of_torch(emoji, expected):
    data = Pairs(*emoji)
    found = load_labeled_images(data)
    assert_fits(found, emoji, expected)
    assert_fits(load_labeled_images(torch.utils.data.Subset(data, range(len(data)))), emoji, expected)
    before = data.n_read
    assert len(found.images[3:7]) == 4
    assert data.n_read == before


def test_a_data_set_of_torchvision_in_memory():
    vision = pytest.importorskip("torchvision.datasets")
    data = vision.FakeData(6, image_size=(3, 20, 20), num_classes=3)
    found = load_labeled_images(data)
    assert found.images[0].size == (20, 20)
    assert found.target.tolist() == [int(label) for _, label in data]


@pytest.mark.bad_input
def test_what_cannot_be_taken_is_refused_with_a_remedy(emoji):
    pandas = pytest.importorskip("pandas")
    paths, labels = emoji
    urls = pandas.DataFrame({"image": ["https://example.org/1.jpg", paths[0]], "label": ["a", "b"]})
    with pytest.raises(ImageError, match=r"image 0 .*a URL; nothing is downloaded: fetch it first"):
        load_labeled_images(urls, folder="somewhere")
    with pytest.raises(FileNotFoundError, match="is a URL, and nothing is downloaded"):
        load_image_folder("https://example.org/birds")
    with pytest.raises(TypeError, match="see load_image_folder"):
        load_labeled_images("birds")
    with pytest.raises(TypeError, match=r"pass loader\.dataset"):
        load_labeled_images(torch.utils.data.DataLoader(Pairs(*emoji)))
    with pytest.raises(ImageError, match="without its transform"):
        load_labeled_images(Pairs(*emoji, transform=lambda image: torch.zeros(3, 8, 8)))
    with pytest.raises(ValueError, match=r"no column of labels .* it has path, x\. Name one with label_column="):
        load_labeled_images(pandas.DataFrame({"path": paths, "x": labels}))
    with pytest.raises(ValueError, match="has no column a; it has"):
        load_labeled_images(pandas.DataFrame({"path": paths, "label": labels}), image_column="a")
    twice = pandas.DataFrame([(paths[0], "a", "1"), (paths[1], "b", "2")], columns=["path", "label", "label"])
    with pytest.raises(ValueError, match=r"2 columns are called label; .* The columns are path, label, label\."):
        load_labeled_images(twice)
    with pytest.raises(ValueError, match="1 of 2 rows have no label, the first of them row 1"):
        load_labeled_images(pandas.DataFrame({"path": paths[:2], "label": ["a", None]}))
    with pytest.raises(TypeError, match="got int"):
        load_labeled_images(3)
