import io
import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps
from small_clip import make_pixels

from skxma.errors import ImageError
from skxma.images._content_key import content_key, file_version
from skxma.images._reading import check_header, load_image
from skxma.images._validation import check_images


def as_array(item) -> np.ndarray:
    image = load_image(item)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["rgb.png", "webp.webp", "bmp.bmp", "ycbcr.jpg", "cmyk.tif", "cmyk.jpg"])
def test_color_files_show_the_image(mode_files, pixels, name):
    tolerance = 0 if name in {"rgb.png", "bmp.bmp", "cmyk.tif"} else 12
    assert np.abs(as_array(mode_files[name]) - pixels).mean() <= tolerance


@pytest.mark.parametrize("name", ["gray.png", "gray_16.png", "one_bit.png"])
def test_gray_files_have_three_equal_channels(mode_files, pixels, name):
    read = as_array(mode_files[name])
    assert (read == read[..., :1]).all()
    if name != "one_bit.png":
        assert np.abs(read[..., 0] - np.asarray(Image.fromarray(pixels).convert("L"))).max() == 0


@pytest.mark.parametrize("name", ["palette.png", "gif.gif"])
def test_palette_files_show_their_colors(mode_files, pixels, name):
    expected = np.asarray(Image.fromarray(pixels).quantize(32).convert("RGB"))
    np.testing.assert_array_equal(as_array(mode_files[name]), expected)


def test_transparency_is_laid_on_white(mode_files, pixels):
    read = as_array(mode_files["rgba.png"])
    alpha = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)[None, :, None] / 255
    np.testing.assert_allclose(read, pixels * alpha + 255 * (1 - alpha), atol=1.5)
    assert (read[:, 0] == 255).all()
    assert (as_array(mode_files["la.png"])[:, 0] == 255).all()


def test_palette_transparency_is_laid_on_white(mode_files):
    palette = Image.open(mode_files["palette.png"])
    transparent = np.asarray(palette) == np.asarray(palette)[0, 0]
    read = as_array(mode_files["palette_alpha.png"])
    assert (read[transparent] == 255).all()
    np.testing.assert_array_equal(read[~transparent], as_array(mode_files["palette.png"])[~transparent])


def test_exif_rotation_is_applied(mode_files, pixels):
    """Orientation 6 means: turn by 90 degrees clockwise to see it upright."""
    np.testing.assert_array_equal(as_array(mode_files["exif_6.png"]), np.rot90(pixels, -1))
    np.testing.assert_array_equal(as_array(mode_files["exif_3.png"]), np.rot90(pixels, 2))
    np.testing.assert_array_equal(as_array(mode_files["exif_1.png"]), pixels)
    with Image.open(mode_files["exif_6.png"]) as opened:
        np.testing.assert_array_equal(as_array(opened), np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_every_orientation_is_that_of_pillow(tmp_path, pixels, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"turned{suffix}", exif=exif)
    with Image.open(tmp_path / f"turned{suffix}") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert expected.shape == (pixels.shape if orientation < 5 else (64, 48, 3))
    np.testing.assert_array_equal(as_array(tmp_path / f"turned{suffix}"), expected)


def test_damaged_exif_spoils_no_image(mode_files, pixels, monkeypatch):
    def fail(self):
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    np.testing.assert_array_equal(as_array(mode_files["exif_6.png"]), pixels)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bit_gray_is_rescaled_not_clipped(mode):
    values = np.array([[0, 257 * 7, 32896, 65535]], dtype=np.uint16)
    image = Image.fromarray(values)
    if mode != "I;16":
        image = Image.frombytes(mode, image.size, values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    assert as_array(image)[0, :, 0].tolist() == [0, 7, 128, 255]


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA", "HSV", "YCbCr", "RGBX"])
def test_rarer_modes_become_rgb(pixels, mode):
    via = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode, "RGB")
    image = Image.fromarray(pixels).convert(via).convert(mode)
    assert as_array(image).shape == pixels.shape


@pytest.mark.parametrize("mode", ["F", "I"])
def test_modes_of_unknown_range_are_refused(mode):
    with pytest.raises(ImageError, match="range is unknown"):
        load_image(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_arrays_are_read(channels):
    array = make_pixels(3, channels=channels or 1)
    array = array[..., 0] if channels is None else array
    read = as_array(array)
    if channels == 3:
        np.testing.assert_array_equal(read, array)
    elif channels == 4:
        expected = Image.new("RGBA", (array.shape[1], array.shape[0]), "white")
        expected.alpha_composite(Image.fromarray(array))
        np.testing.assert_array_equal(read, np.asarray(expected)[..., :3])
    else:
        np.testing.assert_array_equal(read, array.reshape(*array.shape[:2], 1).repeat(3, -1))


def test_arrays_that_are_not_contiguous_are_read(pixels):
    np.testing.assert_array_equal(as_array(pixels[::2, ::-1]), pixels[::2, ::-1])


def test_what_was_read_is_a_copy(pixels):
    original = Image.fromarray(pixels)
    load_image(original).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(original), pixels)


def test_opened_images_stay_undecoded_and_closed_ones_are_read(mode_files, pixels):
    opened = Image.open(mode_files["rgb.png"])
    assert (as_array(opened) == pixels).all()
    assert next(vars(opened)[name] for name in ("_im", "im") if name in vars(opened)) is None
    with Image.open(mode_files["rgb.png"]) as closed:
        pass
    assert (as_array(closed) == pixels).all()


@pytest.mark.posix
def test_files_are_closed(mode_files):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        descriptors = Path("/proc/self/fd")
        before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
        for _ in range(5):
            for path in mode_files.values():
                check_header(path)
                load_image(path)
                content_key(path)
        if descriptors.exists():
            assert len(list(descriptors.iterdir())) <= before


def test_containers_of_paths_are_accepted(image_files):
    pandas = pytest.importorskip("pandas")
    column = np.array(image_files, dtype=object)[:, None]
    for container in (
        image_files,
        tuple(image_files),
        [Path(path) for path in image_files],
        np.array(image_files),
        np.array(image_files)[:, None],
        np.array(image_files, dtype=object),
        column,
        pandas.Series(image_files, index=range(100, 112)),
        pandas.DataFrame({"path": image_files}),
    ):
        items = check_images(container)
        assert [os.fspath(item) for item in items] == image_files


def test_stacks_and_mixed_lists_are_accepted(pixels, image_files):
    for shape in ((2, 8, 9), (2, 8, 9, 1), (2, 8, 9, 3), (2, 8, 9, 4)):
        stack = np.zeros(shape, dtype=np.uint8)
        assert check_images(stack) is stack
    mixed = [pixels, pixels[:10, :, 0], Image.fromarray(pixels), image_files[0], Path(image_files[1])]
    assert len(check_images(mixed)) == 5
    assert len(check_images([])) == 0


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ("image.png", r"single str.*\[image\]"),
        (Path("image.png"), r"single .*Path.*\[image\]"),
        (Image.new("RGB", (4, 4)), "single Image"),
        (b"bytes", "single bytes"),
        (iter(["a.png"]), "list"),
        ({"a.png"}, "set"),
        (None, "NoneType"),
        (np.zeros((2, 8, 9, 3)), r"float64.*\(255 \* x\)"),
        (np.zeros((2, 8, 9, 3), dtype=np.float32), r"float32.*\(255 \* x\)"),
        (np.zeros((2, 8, 9, 3), dtype=np.uint16), "257"),
        (np.zeros((2, 8, 9, 3), dtype=np.int64), "uint8"),
        (np.zeros((8, 9, 3), dtype=np.uint8), r"one image.*x\[None\]"),
        (np.zeros((2, 3, 8, 9), dtype=np.uint8), "moveaxis"),
        (np.zeros((2, 8, 9, 5), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 8), dtype=np.uint8), "shape"),
        (np.zeros((2, 0, 9, 3), dtype=np.uint8), "no pixels"),
        (np.array([["a.png", "b.png"]]), "column"),
        (np.zeros((3, 4)), "float64"),
    ],
)
def test_what_is_no_list_of_images_is_refused(X, match):
    with pytest.raises(ImageError, match=match):
        check_images(X)


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ("missing.png", "no such file"),
        ("https://example.org/cat.jpg", "URL"),
        ("s3://bucket/cat.jpg", "URL"),
        ("data:image/png;base64,AAAA", "URL"),
        ("", "empty path"),
        ("a\0b.png", "not a usable path|no such file"),
        ("x" * 5000, "not a usable path|no such file"),
        (b"", "0 bytes"),
        (None, r"a missing value \(None\)"),
        ([0.5, 1.5], r"a list of 2 numbers, like an embedding.*numpy\.stack\(X\)"),
        (np.zeros(8, dtype=np.float32), r"shape \(8,\), like an embedding.*numpy\.stack\(X\)"),
        (3, "int 3"),
        (float("nan"), "missing value"),
        (np.zeros((4, 4, 3)), r"float64.*255"),
        (np.zeros((4, 4, 2), dtype=np.uint8), "1, 3 or 4"),
        (np.zeros((4, 0, 3), dtype=np.uint8), "no pixels"),
        (np.zeros(4, dtype=np.uint8), "shape"),
    ],
)
def test_bad_items_are_named_by_position(image_files, item, match):
    with pytest.raises(ImageError, match=match) as caught:
        check_images([image_files[0], item, image_files[1]])
    assert caught.value.index == 1
    assert str(caught.value).startswith("image 1")
    with pytest.raises(ImageError, match=match):
        load_image(item, 1)


def test_a_column_of_pyarrow_is_a_list_of_images(image_files):
    pyarrow = pytest.importorskip("pyarrow")
    for column in (pyarrow.array(image_files), pyarrow.chunked_array([image_files[:3], image_files[3:]])):
        assert check_images(column) == image_files
    with pytest.raises(ImageError, match=r"image 1: a missing value"):
        check_images(pyarrow.array([image_files[0], None]))


def test_directory_is_refused(tmp_path):
    with pytest.raises(ImageError, match="directory") as caught:
        check_images([tmp_path])
    assert caught.value.path == str(tmp_path)


def test_all_missing_files_are_counted_and_the_first_named(tmp_path, image_files):
    missing = [str(tmp_path / f"missing_{i}.png") for i in range(8)]
    with pytest.raises(ImageError, match="8 of 20") as caught:
        check_images(image_files + missing)
    message = str(caught.value)
    assert all(path in message for path in missing[:5])
    assert missing[5] not in message
    assert "3 more" in message
    assert caught.value.index == 12


def broken_files(folder: Path, pixels: np.ndarray) -> dict[str, Path]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG")
    contents = {
        "empty.png": b"",
        "text.png": b"this is no image",
        "truncated.png": buffer.getvalue()[:-200],
        "truncated.jpg": jpeg.getvalue()[:300],
        "header_only.jpg": jpeg.getvalue()[:20],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("empty.png", "0 bytes"),
        ("text.png", "not an image"),
        ("truncated.png", "damaged or truncated"),
        ("truncated.jpg", "damaged or truncated"),
        ("header_only.jpg", "damaged or truncated|not an image"),
    ],
)
def test_broken_files_are_named(tmp_path, pixels, name, match):
    path = broken_files(tmp_path, pixels)[name]
    with pytest.raises(ImageError, match=match) as caught:
        load_image(path, 7)
    assert caught.value.index == 7
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).startswith("image 7 ")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "a web page; download"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"message": "Not Found"}', "JSON, such as a server's error; download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9", "a pointer of Git LFS.*git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC; convert it .*pillow_heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42", "a video"),
        (b"PK\x03\x04", "a zip archive"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, start, words):
    (path := tmp_path / "photo.jpg").write_bytes(start + bytes(600))
    with path.open("rb") as file:
        for item in (path, path.read_bytes(), file):
            for read in (load_image, check_header):
                with pytest.raises(ImageError, match=f"not an image in a format that Pillow reads, but .*{words}"):
                    read(item)


def test_header_check_finds_what_has_no_header(tmp_path, pixels):
    files = broken_files(tmp_path, pixels)
    for name in ("empty.png", "text.png"):
        with pytest.raises(ImageError, match=name):
            check_header(files[name], 0)
    check_header(files["truncated.png"], 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_gives_an_image_or_a_named_error(tmp_path, pixels, kind, changes, cut):
    buffer = io.BytesIO()
    Image.fromarray(pixels[:12, :16]).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path / "damaged"
    path.write_bytes(bytes(content[: int(cut * 2 * len(content))]))
    try:
        found = load_image(path, 3).mode
    except ImageError as error:
        found = (error.index, error.path)
    assert found in ("RGB", (3, str(path)))


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("L", (400, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        load_image(path)


def test_errors_survive_pickling():
    with pytest.raises(ImageError) as caught:
        load_image("missing.png", 4)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.index, again.path, again.reason) == (
        str(caught.value),
        4,
        "missing.png",
        caught.value.reason,
    )


def test_equal_content_has_equal_keys_wherever_it_lies(tmp_path, pixels):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(pixels).save(path)
    assert content_key(paths[0]) == content_key(str(paths[1]))
    assert content_key(pixels) == content_key(Image.fromarray(pixels)) == content_key(pixels.copy())


def test_keys_tell_shapes_and_rotations_apart(mode_files):
    flat = np.zeros((4, 6, 3), dtype=np.uint8)
    assert content_key(flat) != content_key(flat.reshape(6, 4, 3))
    upright, turned = (Image.open(mode_files[f"exif_{orientation}.png"]) for orientation in (1, 6))
    assert content_key(upright) != content_key(turned)


@given(arrays(np.uint8, (3, 4, 3)), st.integers(0, 35), st.integers(1, 255))
def test_keys_change_with_any_pixel(array, position, change):
    other = array.copy()
    other.reshape(-1)[position] = (int(other.reshape(-1)[position]) + change) % 256
    assert content_key(array) != content_key(other)
    np.testing.assert_array_equal(np.asarray(load_image(array)), array)


def test_key_of_a_missing_file_names_it():
    with pytest.raises(ImageError, match=r"missing\.png"):
        content_key("missing.png", 2)


def test_the_version_of_a_file_changes_with_it_and_waits_until_it_has_settled(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    assert file_version(file) is None
    os.utime(file, (1e9, 1e9))
    before = file_version(str(file))
    assert before == file_version(file) is not None
    file.write_bytes(b"other")
    os.utime(file, (1e9, 1e9))
    assert file_version(file) != before
    os.utime(file, (1e9, 1e9 + 1))
    assert file_version(file) != before
    assert file_version(tmp_path / "absent.png") is None
    assert file_version(np.zeros((2, 2, 3), dtype=np.uint8)) is None


def test_what_is_no_file_is_named_for_what_it_is(tmp_path):
    (tmp_path / "dead.png").symlink_to("absent.png")
    with pytest.raises(ImageError, match="a symbolic link that leads to no file"):
        check_header(tmp_path / "dead.png")
    with pytest.raises(ImageError, match="a pipe, socket or device; expected a file"):
        load_image(os.devnull)
    (tmp_path / "real.png").write_bytes(b"")
    (entry,) = [entry for entry in os.scandir(os.fsencode(tmp_path)) if entry.name == b"real.png"]
    with pytest.raises(ImageError, match="a path of bytes; expected a str"):
        load_image(entry)


def test_programs_are_refused_before_anything_runs_them(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def run(*given, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    path = tmp_path / "drawing.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="EPS is run by another program"):
        load_image(path)
    with Image.open(path) as opened, pytest.raises(ImageError, match="EPS is run by another program"):
        load_image(opened)


def test_an_image_that_does_not_fit_in_memory_is_named(tmp_path, pixels, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(pixels).save(path)

    def fill(image, rescale_16bit):
        raise MemoryError

    monkeypatch.setattr("skxma.images._reading.to_rgb", fill)
    with pytest.raises(MemoryError, match=r"image 3 \('.*large\.png'\): too large for the memory"):
        load_image(path, 3)


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path, pixels, monkeypatch):
    path = tmp_path / "there.png"
    Image.fromarray(pixels).save(path)
    monkeypatch.setattr("skxma.images._reading.find_problem", lambda item: path.unlink(missing_ok=True))
    with pytest.raises(ImageError, match="FileNotFoundError"):
        load_image(path)
