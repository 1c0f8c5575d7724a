"""Gray images of 16 bits that hold fewer: rescaled where asked for, warned of where not, never mixed."""

import io
import warnings

import numpy as np
import pytest
from bad_images import png_chunk
from PIL import Image
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier, load
from skxma.errors import EncoderMismatchError, ImageError
from skxma.images import load_image
from skxma.images._content_key import content_key
from skxma.store import EmbeddingStore, MemoryStore

GRAY = make_pixels(0)[..., 0]
GRAY[0, :2] = 0, 255
TWELVE = np.round(GRAY * (4095 / 255)).astype(np.uint16)


def as_file(values: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def tiny(**options) -> CLIPEncoder:
    return CLIPEncoder("tiny", **{"memory": MemoryStore(), "precision": "fp32", "device": "cpu", **options})


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("rescale_16bit", ["range", 12])
def test_twelve_bits_are_embedded_as_the_same_image_of_eight(kind, rescale_16bit):
    (eight,) = tiny().encode_image([GRAY])
    with pytest.warns(UserWarning, match="small part of their range"):
        (dark,) = tiny().encode_image([as_file(TWELVE, kind)])
    assert dark @ eight < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (seen,) = tiny(rescale_16bit=rescale_16bit).encode_image([as_file(TWELVE, kind)])
    np.testing.assert_allclose(seen, eight, atol=1e-6)


def test_the_remedy_of_the_warning_works():
    with pytest.warns(UserWarning, match="almost black") as caught:
        tiny().encode_image([make_pixels(1), as_file(TWELVE)])
    message = str(caught[0].message)
    assert len(caught) == 1
    assert "1 of 2 images" in message
    assert "image 1" in message
    assert "gray values from 0 to 4095" in message
    for remedy in ("rescale_16bit='range'", "rescale_16bit=12"):
        assert remedy in message
        (seen,) = eval(f"tiny({remedy})").encode_image([as_file(TWELVE)])
        assert seen @ tiny().encode_image([GRAY])[0] > 0.999


@pytest.mark.parametrize("values", [GRAY.astype(np.uint16) * 257, np.full((9, 9), 7, np.uint16), GRAY])
def test_a_full_range_and_a_single_value_are_not_warned_of(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().encode_image([as_file(values)])


def test_a_full_range_is_read_as_before_by_every_way_and_a_flat_image_by_range():
    wide = as_file(GRAY.astype(np.uint16) * 257)
    for rescale_16bit in ("dtype", "range", 16):
        np.testing.assert_array_equal(np.asarray(load_image(wide, rescale_16bit=rescale_16bit))[..., 0], GRAY)
    flat = as_file(np.full((4, 4), 257 * 9, np.uint16))
    assert np.asarray(load_image(flat, rescale_16bit="range")).max() == 9


def test_values_beyond_the_bits_that_were_named_are_refused():
    with pytest.raises(ImageError, match=r"image 0: a value of 4095, beyond the 10 bits of rescale_16bit=10"):
        tiny(rescale_16bit=10).encode_image([as_file(TWELVE)])


def sixteen_bit_colors(values: np.ndarray) -> bytes:
    import struct
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_dark_colors_of_sixteen_bits_are_warned_of_too():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().encode_image([sixteen_bit_colors(make_pixels(2).astype(np.uint16) * 257)])
    with pytest.warns(UserWarning, match="color values from .* 8 bits"):
        tiny().encode_image([sixteen_bit_colors(make_pixels(2).astype(np.uint16) * 16)])


@pytest.mark.parametrize("form", ["file", "PIL image"])
def test_stores_never_mix_the_ways(form, tmp_path):
    item = as_file(TWELVE) if form == "file" else Image.fromarray(TWELVE)
    for store in (MemoryStore(), EmbeddingStore(tmp_path / "store")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {way: tiny(memory=store, rescale_16bit=way).encode_image([item]) for way in ("dtype", "range", 13)}
            for way, rows in found.items():
                np.testing.assert_array_equal(tiny(memory=store, rescale_16bit=way).encode_image([item]), rows)
                fresh = tiny(memory=False, rescale_16bit=way).encode_image([item])
                np.testing.assert_allclose(fresh, rows, atol=1e-6)
        assert len({rows.fingerprint for rows in found.values()}) == 3


def test_images_that_only_one_way_tells_apart_have_keys_of_their_own():
    dim, dimmer = (Image.fromarray(np.array([[0, most]], np.uint16)) for most in (340, 300))
    assert content_key(dim) == content_key(dimmer)
    assert content_key(dim, rescale_16bit=12) != content_key(dimmer, rescale_16bit=12)


def test_a_model_refuses_embeddings_and_encoders_of_another_way():
    images, y = [as_file(TWELVE), as_file(TWELVE[::-1]), GRAY, GRAY[::-1]], list("abab")
    clf = XMAdapterClassifier(tiny(rescale_16bit="range"), vocabulary=None).fit(images, y)
    with pytest.raises(EncoderMismatchError):
        clf.predict(tiny().encode_image([GRAY]))
    clf.set_params(encoder__rescale_16bit="dtype")
    with pytest.raises(EncoderMismatchError):
        clf.predict(images)


def test_the_fingerprint_of_the_default_is_that_of_the_weights():
    assert tiny().fingerprint == tiny()._load().fingerprint
    assert tiny(rescale_16bit="range").fingerprint != tiny().fingerprint
    np.testing.assert_array_equal(tiny(rescale_16bit="range").encode_text(["a"]), tiny().encode_text(["a"]))


@pytest.mark.parametrize("rescale_16bit", ["bits", 0, 17, None, 2.5])
def test_other_ways_are_refused(rescale_16bit):
    with pytest.raises(ValueError, match="rescale_16bit"):
        tiny(rescale_16bit=rescale_16bit).fit()


def test_views_are_warned_of_too():
    with pytest.warns(UserWarning, match="small part of their range"):
        tiny().encode_image([as_file(TWELVE)], n_views=2, random_state=0)


def test_a_model_file_remembers_the_way(tmp_path):
    images, y = [as_file(TWELVE), as_file(TWELVE[::-1]), GRAY[:, ::-1], GRAY[::-1, ::-1]], list("abab")
    for way in ("range", 12):
        clf = XMAdapterClassifier(tiny(rescale_16bit=way), vocabulary=None).fit(images, y)
        clf.save(tmp_path / "m.skxma")
        loaded = load(tmp_path / "m.skxma")
        assert loaded.encoder.rescale_16bit == way
        np.testing.assert_allclose(
            loaded.set_params(encoder__precision="fp32").predict_proba(images), clf.predict_proba(images)
        )
