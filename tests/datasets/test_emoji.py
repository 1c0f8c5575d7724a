import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skxma
from skxma.datasets import load_emoji

SETS = ["noto", "twemoji", "fluent-emoji-flat", "emojione", "noto-v1"]
HELD_OUT = Path(__file__).parents[2] / "examples" / "train_tiny_clip" / "held_out.json"


@pytest.fixture(scope="module")
def emoji():
    return load_emoji()


def test_has_forty_classes_by_five_sets(emoji):
    assert emoji.images.shape == (200, 64, 64, 3)
    assert emoji.images.dtype == np.uint8
    names, counts = np.unique(emoji.target, return_counts=True)
    assert names.tolist() == emoji.target_names.tolist()
    assert counts.tolist() == [5] * 40
    for name in emoji.target_names:
        assert emoji.sets[emoji.target == name].tolist() == SETS


def test_names_are_words(emoji):
    assert all(name.replace(" ", "").isalpha() and name == name.lower() for name in emoji.target_names)


def test_order_is_sorted_and_stable(emoji):
    assert emoji.target.tolist() == sorted(emoji.target)
    again = load_emoji()
    np.testing.assert_array_equal(emoji.images, again.images)
    assert emoji.filenames.tolist() == again.filenames.tolist()


def test_every_image_differs_and_shows_something(emoji):
    assert len({image.tobytes() for image in emoji.images}) == 200
    assert (emoji.images.reshape(200, -1).std(1) > 10).all()


def test_paths_are_the_same_images(emoji):
    paths = load_emoji(as_paths=True)
    assert all(isinstance(path, Path) for path in paths.images)
    assert [str(path) for path in paths.images] == emoji.filenames.tolist()
    for path, image in zip(paths.images, emoji.images, strict=True):
        with Image.open(path) as opened:
            assert opened.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(opened), image)


def test_return_X_y(emoji):
    X, y = load_emoji(return_X_y=True)
    np.testing.assert_array_equal(X, emoji.images)
    np.testing.assert_array_equal(y, emoji.target)
    paths, y = load_emoji(return_X_y=True, as_paths=True, sets="noto")
    assert len(paths) == len(y) == 40


def test_sets_pick_images_in_the_fixed_order(emoji):
    some = load_emoji(sets=["noto-v1", "noto"])
    assert some.sets.tolist() == ["noto", "noto-v1"] * 40
    np.testing.assert_array_equal(some.images, emoji.images[np.isin(emoji.sets, ["noto", "noto-v1"])])


@pytest.mark.parametrize("sets", ["openmoji", ["noto", "openmoji"]])
def test_an_unknown_set_is_named_with_those_that_exist(sets):
    with pytest.raises(ValueError, match=r"unknown set 'openmoji'.*'noto', 'twemoji'.*'noto-v1'"):
        load_emoji(sets=sets)


def test_no_set_is_refused():
    with pytest.raises(ValueError, match="sets is empty"):
        load_emoji(sets=[])


def test_licenses_are_named(emoji):
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    for text in (emoji.DESCR, notice):
        for part in ("Google", "Twitter", "Microsoft", "Emoji One", "Miles Johnson", "licenses/by/4.0", "64"):
            assert part in text
    root = Path(skxma.__file__).parent
    assert "Version 2.0" in (root / "datasets" / "licenses" / "Apache-2.0.txt").read_text(encoding="utf-8")


def test_the_sample_is_small():
    assert sum(path.stat().st_size for path in load_emoji(as_paths=True).images) < 1_500_000


@pytest.mark.skipif(not HELD_OUT.exists(), reason="the training script isn't in an installed copy")
def test_no_class_was_trained_on(emoji):
    held_out = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    assert len(held_out) == len(set(held_out)) == 150
    assert set(emoji.target_names) <= set(held_out)


def test_loading_needs_no_torch():
    code = "import sys; from skxma.datasets import load_emoji; load_emoji(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
