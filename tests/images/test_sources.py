"""Images in every form that people have them in, and messages whose remedies work."""

import io
import os
import re
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import encode_as
from PIL import Image
from small_clip import make_pixels

from skxma.errors import ImageError
from skxma.images import check_images, load_image
from skxma.images._content_key import content_key, file_version
from skxma.images._reading import check_header
from skxma.images._sources import path_of
from skxma.images._validation import as_items

PIXELS = make_pixels(0)
CONTENT = encode_as(PIXELS, "PNG")


def read(item) -> np.ndarray:
    return np.asarray(load_image(item))


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(CONTENT)
    os.utime(path, (1e9, 1e9))
    return path


def file_forms(path: Path) -> dict:
    spooled = tempfile.SpooledTemporaryFile(max_size=10**6)  # noqa: SIM115 - closed when forgotten
    spooled.write(CONTENT)
    return {
        "bytes": CONTENT,
        "bytearray": bytearray(CONTENT),
        "memoryview": memoryview(CONTENT),
        "BytesIO": io.BytesIO(CONTENT),
        "open file": path.open("rb"),
        "written, at its end": spooled,
        "record of bytes": {"bytes": CONTENT, "path": None},
        "record of bytes with the name of a file that is not here": {"bytes": CONTENT, "path": "cat_17.png"},
        "record of a path": {"bytes": None, "path": str(path)},
        "record of nothing but a path": {"path": path},
    }


def test_every_form_of_a_file_shows_its_image_and_has_its_key(path):
    forms = file_forms(path)
    items = check_images(list(forms.values()))
    for name, item in zip(forms, items, strict=True):
        check_header(item)
        np.testing.assert_array_equal(read(item), PIXELS, err_msg=name)
        np.testing.assert_array_equal(read(item), PIXELS, err_msg=f"{name}, read again")
        assert content_key(item) == content_key(path), name
    assert file_version(forms["record of a path"]) == file_version(path) is not None
    assert file_version(forms["bytes"]) is None


def test_a_file_in_an_archive_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", CONTENT)
    with zipfile.ZipFile(tmp_path / "images.zip") as archive, archive.open("a.png") as file:
        np.testing.assert_array_equal(read(file), PIXELS)


def test_an_open_file_keeps_its_position_and_serves_several_threads():
    file = io.BytesIO(CONTENT)
    file.seek(11)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, [file] * 50))
    assert all((one == PIXELS).all() for one in found)
    assert file.tell() == 11


def test_names_of_files_and_records_are_in_messages(path, tmp_path):
    text = tmp_path / "text.png"
    text.write_bytes(b"no image")
    with text.open("rb") as file, pytest.raises(ImageError, match=r"image 3 \('.*text\.png'\): not an image") as caught:
        check_header(file, 3)
    assert caught.value.path == str(text)
    assert path_of({"bytes": b"", "path": "a.png"}) == "a.png"
    assert path_of(io.BytesIO()) is None
    with pytest.raises(ImageError, match=r"image 0 \('cat\.png'\): damaged or truncated"):
        load_image({"bytes": CONTENT[:-200], "path": "cat.png"}, 0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: b"", "0 bytes"),
        (lambda path: io.BytesIO(), "0 bytes"),
        (lambda path: b"no image", "not an image"),
        (lambda path: {"bytes": None, "path": None}, "neither bytes nor a path"),
        (lambda path: {"bytes": None, "path": "missing.png"}, "no such file"),
        (lambda path: path.open(encoding="latin-1"), "opened as text; open it with mode 'rb'"),
        (lambda path: io.StringIO("text"), "opened as text"),
    ],
)
def test_files_and_contents_that_hold_no_image_are_refused(path, make, match):
    with pytest.raises(ImageError, match=match) as caught:
        check_header(make(path), 2)
    assert caught.value.index == 2
    for refuse in (load_image, content_key if "not an" not in match and match != "0 bytes" else load_image):
        with pytest.raises(ImageError, match=match):
            refuse(make(path))


def test_a_closed_file_is_refused_and_its_path_is_not(path):
    file = path.open("rb")
    file.close()
    with pytest.raises(ImageError, match=r"image 0 \('.*'\): a closed file; open it again, or pass its path") as caught:
        check_images([file])
    np.testing.assert_array_equal(read(caught.value.path), PIXELS)
    with path.open("rb") as again:
        np.testing.assert_array_equal(read(again), PIXELS)


def test_a_stream_that_runs_once_is_refused_and_its_bytes_are_not():
    out, back = os.pipe()
    os.write(back, CONTENT)
    os.close(back)
    with os.fdopen(out, "rb") as image:
        with pytest.raises(ImageError, match="can't be read twice; pass its bytes") as caught:
            check_images([image])
        np.testing.assert_array_equal(read(run_remedy(caught, r"pass its bytes: (.*)", image=image)), PIXELS)


def test_a_path_of_bytes_is_recognized(path):
    image = os.fsencode(path)
    with pytest.raises(ImageError, match="a path must be a str") as caught:
        check_header(image)
    np.testing.assert_array_equal(read(run_remedy(caught, r"must be a str: (.*)", image=image)), PIXELS)


def run_remedy(caught, pattern: str, **names):
    """What the advice of an error's message gives."""
    found = re.search(pattern, str(caught.value), re.DOTALL)
    assert found is not None, str(caught.value)
    return eval(
        found[1].rstrip("."), {"np": np, "numpy": np, "os": os, "torch": torch, "PIL": __import__("PIL.Image"), **names}
    )


GRAY = PIXELS[..., 0]
BATCH = np.stack([PIXELS, PIXELS[:, ::-1]])


@pytest.mark.parametrize(
    ("tensor", "wanted"),
    [
        (torch.from_numpy(BATCH), BATCH),
        (torch.from_numpy(BATCH).permute(0, 3, 1, 2), BATCH),
        (torch.from_numpy(BATCH).permute(0, 3, 1, 2).contiguous(), BATCH),
        (torch.from_numpy(BATCH[..., 0]), BATCH[..., 0]),
        (torch.from_numpy(BATCH[..., :1]), BATCH[..., 0]),
        (torch.from_numpy(BATCH[..., 0])[:, None], BATCH[..., 0]),
    ],
)
def test_torch_batches_are_taken_in_either_order(tensor, wanted):
    items = check_images(tensor)
    assert len(items) == 2
    for item, one in zip(items, wanted, strict=True):
        np.testing.assert_array_equal(read(item), read(one))
        assert content_key(item) == content_key(one)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_torch_tensors_in_a_list_are_taken(order):
    tensor = torch.from_numpy(PIXELS).permute(*order)
    (item,) = check_images([tensor])
    check_header(item)
    np.testing.assert_array_equal(read(item), PIXELS)
    assert content_key(item) == content_key(PIXELS)
    np.testing.assert_array_equal(read(torch.from_numpy(GRAY)), read(GRAY))
    np.testing.assert_array_equal(read(torch.nn.Parameter(tensor, requires_grad=False)), PIXELS)


X = torch.from_numpy(BATCH).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("given", "pattern", "wanted"),
    [
        (X[0], r"pass (X\[None\])", PIXELS),
        (torch.from_numpy(BATCH[..., 0])[:1], r"without channels (X\[:, None\])", GRAY),
        (X / 255, r"in \[0, 1\] pass (.*\.byte\(\))", PIXELS),
        (X.int(), r"0 to 255 pass (x\.byte\(\))", PIXELS),
        (np.asarray(X), r"(np\.moveaxis\(.*\))", PIXELS),
        (BATCH / 255, r"in \[0, 1\] pass (.*'\))\. Bring", PIXELS),
        (BATCH.astype(np.float32) / 255, r"in \[0, 1\] pass (.*'\))\. Bring", PIXELS),
        (BATCH.astype(int), r"0 to 255 pass (.*'\))", PIXELS),
        (BATCH.astype(np.uint16) * 257, r"16-bit range pass (.*'\)), for", PIXELS),
        (BATCH.astype(np.uint16) * 16, r"12 bits (\(x >> 4\).*'\))", PIXELS),
        (BATCH[..., 0] > 99, r"pass (255 \* .*'\))", np.uint8(255 * (GRAY > 99))),
        (PIXELS, r"pass (x\[None\])", PIXELS),
    ],
)
def test_the_remedy_of_a_refused_array_or_tensor_works(given, pattern, wanted):
    with pytest.raises(ImageError) as caught:
        check_images(given)
    remedy = run_remedy(caught, pattern, x=given, X=given)
    np.testing.assert_array_equal(read(check_images(remedy)[0]), read(wanted))
    if given.ndim == 4:
        with pytest.raises(ImageError, match="image 0: ") as one:
            check_images([given[0]])
        np.testing.assert_array_equal(read(run_remedy(one, pattern, x=given[0])), read(wanted))


def test_a_float_array_of_another_range_is_brought_there():
    x = PIXELS / 40.0 - 3
    x[0, 0] = 0 / 40.0 - 3
    x[0, 1] = 255 / 40.0 - 3
    with pytest.raises(ImageError) as caught:
        check_images([x])
    x = run_remedy(caught, r"range there first: x = (.*)", x=x)
    np.testing.assert_allclose(read(run_remedy(caught, r"pass (.*'\))\. Bring", x=x)), PIXELS, atol=255)
    assert np.ptp(read(run_remedy(caught, r"pass (.*'\))\. Bring", x=x))) == 255


@pytest.mark.parametrize("mode", ["F", "I"])
def test_an_image_of_unknown_range_is_scaled_as_its_error_says(mode):
    image = Image.fromarray(np.arange(12.0).reshape(3, 4).astype(np.float32)).convert(mode)
    with pytest.raises(ImageError, match="range is unknown") as caught:
        check_header(image)
    x = run_remedy(caught, r"x = (.*?); PIL", image=image)
    assert np.ptp(read(run_remedy(caught, r"(PIL\.Image\.fromarray.*)", x=x))) == 255


def test_float_embeddings_of_torch_are_sent_the_right_way():
    from skxma.embeddings import is_embeddings

    X = torch.zeros(3, 8, requires_grad=True)
    with pytest.raises(ImageError, match="embeddings go in as an array") as caught:
        check_images(X)
    assert is_embeddings(run_remedy(caught, r"an array: (.*)", X=X))


class Pairs(torch.utils.data.Dataset):
    """As torchvision's data sets: an image and its label."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i):
        return Image.fromarray(BATCH[i]), i


class Rows(Pairs):
    """As those of Hugging Face."""

    def __getitem__(self, i):
        if not isinstance(i, int):
            raise KeyError(i)
        if i >= 2:
            raise IndexError(i)
        return {"label": i, "image": Image.fromarray(BATCH[i])}


class Plain(Rows):
    def __getitem__(self, i):
        return super().__getitem__(i)["image"]


def image_folder(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    for name, pixels in zip("ab", BATCH, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "1.png")
    return torchvision.datasets.ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (image_folder, r"pass the paths, (.*\]), and X\.targets as y"),
        (lambda _: Pairs(), r"without their labels: (.*)"),
        (lambda _: Rows(), r": pass (\[row.*)"),
        (lambda _: Plain(), r": pass (list\(X\))"),
        (lambda _: torch.utils.data.DataLoader(Pairs(), batch_size=2), r"without their labels: (.*)"),
        (lambda _: torch.utils.data.DataLoader(Plain()), r": pass (list\(.*\))"),
        (lambda _: iter(BATCH), r": pass (list\(X\))"),
        (lambda _: {"a": BATCH[0], "b": BATCH[1]}, r"its images, (list\(.*\))\."),
        (lambda _: {1: BATCH[0], 2: BATCH[1]}.values(), r": pass (list\(X\))"),
    ],
)
def test_the_remedy_of_a_refused_container_works(tmp_path, make, pattern):
    X = make(tmp_path)
    with pytest.raises(ImageError, match="Expected a list of images") as caught:
        as_items(X)
    items = check_images(run_remedy(caught, pattern, X=X))
    np.testing.assert_array_equal([read(item) for item in items], BATCH)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: list(map(Pairs().__getitem__, range(2))), r"pass (\[row\[0\].*?\])$"),
        (lambda: list(map(Rows().__getitem__, range(2))), r"alone: (\[row.*?\])$"),
    ],
)
def test_the_remedy_of_a_list_of_pairs_or_rows_works(make, pattern):
    X = make()
    with pytest.raises(ImageError, match="2 of 2 images can't be read") as caught:
        check_images(X)
    reason = type("Caught", (), {"value": caught.value.reason})
    items = check_images(run_remedy(reason, pattern, X=X))
    np.testing.assert_array_equal([read(item) for item in items], BATCH)


@pytest.mark.parametrize("X", [CONTENT, io.BytesIO(CONTENT), {"bytes": CONTENT, "path": None}])
def test_a_single_image_is_to_be_wrapped(X):
    with pytest.raises(ImageError, match=r"a single .*wrap it: \[image\]"):
        check_images(X)
    np.testing.assert_array_equal(read(check_images([X])[0]), PIXELS)


def test_frames_of_one_column_hold_contents_and_records():
    pandas = pytest.importorskip("pandas")
    for value in (CONTENT, {"bytes": CONTENT, "path": None}, PIXELS):
        for X in (pandas.Series([value] * 2), pandas.DataFrame({"image": [value] * 2})):
            assert [read(item).tolist() for item in check_images(X)] == [PIXELS.tolist()] * 2
    with pytest.raises(ImageError, match="pass a list of bytes"):
        check_images(np.array([CONTENT]))


@pytest.mark.parametrize("kind", ["iCCP", "zTXt", "after the pixels"])
def test_a_png_with_large_notes_shows_the_image_of_the_same_jpeg(tmp_path, kind):
    import zlib

    from bad_images import make_with_chunk, png_chunk

    large = zlib.compress(os.urandom(1_500_000))
    if kind == "iCCP":
        content = encode_as(PIXELS, "PNG", icc_profile=os.urandom(1_500_000))
    elif kind == "zTXt":
        content = make_with_chunk(CONTENT, b"zTXt", b"x\0\0" + large)
    else:
        content = CONTENT[:-12] + png_chunk(b"zTXt", b"x\0\0" + large) + CONTENT[-12:]
    (tmp_path / "large.png").write_bytes(content)
    for item in (tmp_path / "large.png", content, io.BytesIO(content)):
        check_header(item)
        np.testing.assert_array_equal(read(item), PIXELS)
    jpeg = encode_as(PIXELS, "JPEG", icc_profile=os.urandom(1_500_000), quality=95)
    assert read(jpeg).shape == PIXELS.shape


@pytest.mark.parametrize("cut", [40, -8])
def test_a_png_with_large_notes_that_is_cut_short_is_still_refused(cut):
    content = encode_as(PIXELS, "PNG", icc_profile=os.urandom(1_500_000))[: 1_500_900 + cut if cut > 0 else -1000]
    with pytest.raises(ImageError, match="damaged or truncated"):
        load_image(content)


def test_a_path_that_can_read_itself_is_a_path(tmp_path):
    class Readable(type(tmp_path)):
        def read(self):
            raise AssertionError("was taken for a file")

    (tmp_path / "a.png").write_bytes(CONTENT)
    path = Readable(tmp_path / "a.png")
    check_header(path)
    assert content_key(path) == content_key(CONTENT)
    np.testing.assert_array_equal(read(path), PIXELS)
