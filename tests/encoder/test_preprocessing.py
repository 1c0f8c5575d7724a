import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from small_clip import make_pixels

from skxma import CLIPEncoder
from skxma.encoder._preprocessing import make_geometry
from skxma.images._reading import load_image

SIDES = st.integers(1, 300)


def geometries(size=64, **options):
    """Of open_clip's evaluation transform, to the last digit and fast."""
    import open_clip

    config = open_clip.transform.PreprocessCfg(size=size, **options)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    return make_geometry(transform, exact=True), make_geometry(transform, exact=False)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@given(width=SIDES, height=SIDES)
@example(width=64, height=64)
@example(width=97, height=64)
@example(width=64, height=97)
@settings(max_examples=15, deadline=None)
def test_fast_pixels_are_within_a_level_of_pillows_on_average(mode, interpolation, width, height):
    exact, fast = geometries(resize_mode=mode, interpolation=interpolation)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    wanted, found = exact(image), fast(image)
    assert found.shape == wanted.shape == (64, 64, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).mean() < 0.75


def test_what_torch_does_not_resize_stays_pillows():
    image = Image.fromarray(make_pixels(0, 90, 120))
    exact, fast = geometries(resize_mode="longest", fill_color=9)
    np.testing.assert_array_equal(fast(image), exact(image))


def test_sides_of_their_own():
    exact, fast = geometries(size=(40, 64), resize_mode="squash")
    image = Image.fromarray(make_pixels(0, 90, 120))
    assert fast(image).shape == (40, 64, 3)
    assert np.abs(fast(image).astype(int) - exact(image)).max() <= 2


def save_photograph(path, width=640, height=424):
    """A part of a real photograph as a JPEG file."""
    Image.fromarray(load_sample_images().images[0]).crop((0, 0, width, height)).save(path, quality=92)
    return str(path)


@pytest.fixture
def photo(tmp_path):
    return save_photograph(tmp_path / "china.jpg")


@pytest.mark.parametrize(
    ("min_short_side", "size"),
    [(None, (640, 424)), (425, (640, 424)), (213, (640, 424)), (212, (320, 212)), (100, (160, 106)), (1, (80, 53))],
)
def test_drafts_keep_enough_pixels(photo, min_short_side, size):
    assert load_image(photo, min_short_side=min_short_side).size == size
    opened = Image.open(photo)
    assert load_image(opened, min_short_side=min_short_side).size == size
    assert opened.size == (640, 424)


@pytest.mark.parametrize(("whole", "drafted"), [((640, 427), (640, 427)), ((636, 424), (159, 106)), ((6, 6), (3, 3))])
def test_drafts_divide_both_sides(tmp_path, whole, drafted):
    assert load_image(save_photograph(tmp_path / "part.jpg", *whole), min_short_side=1).size == drafted


def test_drafts_are_turned_upright(tmp_path):
    image = Image.fromarray(make_pixels(0, 200, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg", min_short_side=100).size == (100, 150)


def test_only_jpegs_are_drafted(tmp_path):
    pixels = make_pixels(0, 200, 300)
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    for item in (tmp_path / "whole.png", pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(load_image(item, min_short_side=10)), pixels)


def test_drafts_move_embeddings_less_than_half_precision_does(tmp_path):
    """Drafts of files against their decoded pixels, which are resized from their full size."""
    sizes = [(640, 424), (600, 416), (424, 424), (512, 400), (640, 392), (432, 416)]
    photos = [save_photograph(tmp_path / f"{i}.jpg", *size) for i, size in enumerate(sizes)]
    low, full = (CLIPEncoder("tiny", precision=p, memory=False) for p in ("bf16", "fp32"))
    images = [load_image(photo) for photo in photos]
    drafted = full.encode_image([load_image(photo, min_short_side=low._load().min_short_side) for photo in photos])
    exact, rounded = full.encode_image(images), low.encode_image(images)
    assert 0 < np.linalg.norm(drafted - exact) < np.linalg.norm(rounded - exact)
    assert not np.array_equal(low.encode_image(photos), rounded)


def test_fast_resizing_moves_embeddings_far_less_than_half_precision_does():
    exact, fast = geometries()
    photos = [Image.fromarray(picture[:, 10 * i :]) for picture in load_sample_images().images for i in range(5)]
    low, full = (CLIPEncoder("tiny", precision=p, memory=False) for p in ("bf16", "fp32"))
    wanted, found = (np.stack([geometry(photo) for photo in photos]) for geometry in (exact, fast))
    base = full.encode_image(wanted)
    moved, rounded = (np.linalg.norm(other - base) for other in (full.encode_image(found), low.encode_image(wanted)))
    assert 0 < moved < rounded / 4


def test_full_precision_decodes_and_resizes_to_the_last_digit(photo):
    encoder = CLIPEncoder("tiny", precision="fp32", memory=False)
    np.testing.assert_array_equal(encoder.encode_image([photo]), encoder.encode_image([load_image(photo)]))


def test_views_are_cut_from_the_whole_image(photo, monkeypatch):
    asked = []

    def watch(item, index=None, min_short_side=None, *more):
        asked.append(min_short_side)
        return load_image(item, index, min_short_side, *more)

    monkeypatch.setattr("skxma.encoder._clip_encoder.load_image", watch)
    encoder = CLIPEncoder("tiny", precision="bf16", memory=False)
    views, whole = encoder.encode_image([photo], n_views=3, random_state=0), encoder.encode_image([photo])
    assert views.shape == whole.shape
    assert asked == [None, 3 * 64]
