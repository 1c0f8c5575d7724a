"""Whatever has the name of a image is encoded rightly or refused by name, without a crash, a hang or full memory."""

import copy
import functools
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import FORMATS, Jail, bombs, encode_as, make_png, no_files, strange, truncated, write_files, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_clip import MODEL_CONFIG, make_model_folder, make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.cli.main import main
from skxma.datasets import load_image_folder
from skxma.errors import ImageError
from skxma.images._reading import load_image

pytestmark = [
    pytest.mark.bad_input,
    pytest.mark.skipif(sys.platform == "win32", reason="the jail forks and limits memory as POSIX does"),
]
PIXELS = make_pixels(0)


@pytest.fixture(scope="module")
def jail():
    jail = Jail()
    yield jail
    jail.close()


@functools.cache
def tiny() -> CLIPEncoder:
    return CLIPEncoder("tiny", memory=False, precision="fp32", device="cpu", n_threads=1)


def what_is_wrong(found: dict, path: str, wanted: str | np.ndarray | None) -> str | None:
    """Why an answer of the jail is none that a user could work with; None if it is."""
    if "signal" in found:
        return f"ended by {found['signal']}"
    if "error" in found:
        named = found["error"] == "ImageError" and found["index"] == 0 and (not path or found["path"] == path)
        expected = wanted is None or (isinstance(wanted, str) and re.search(wanted, found["message"]))
        return None if named and expected else f"{found['error']}: {found['message']}"
    if isinstance(wanted, str):
        return "was taken for a image"
    if wanted is not None and not np.allclose(tiny().encode_image([wanted])[0], found["embedding"], atol=1e-5):
        return "has another image's embedding"
    return None if np.isclose(np.linalg.norm(found["embedding"]), 1) else "has no embedding"


@pytest.mark.parametrize("kind", ["truncated", "strange", "bombs", "no files"])
def test_every_file_is_encoded_rightly_or_refused_by_name(kind, jail, tmp_path, record_property):
    made = {"truncated": lambda: truncated(PIXELS), "strange": lambda: strange(PIXELS), "bombs": bombs}
    if kind == "no files":
        cases = list(no_files(tmp_path, encode_as(PIXELS, "PNG"), PIXELS))
    else:
        cases = write_files(tmp_path, made[kind]())
    problems = {case.name: what_is_wrong(jail.encode(case.path), case.path, case.wanted) for case in cases}
    record_property("bad_inputs", len(problems))
    assert {name: problem for name, problem in problems.items() if problem} == {}
    assert len(problems) == len(cases) >= 15


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=40),
    near_the_start=st.booleans(),
)
def test_flipped_bytes_of_every_format(jail, tmp_path_factory, kind, flips, near_the_start):
    content = bytearray(encode_as(PIXELS[:24, :32], kind))
    for place, change in flips:
        # headers make up little of a file and most of what can go wrong
        content[int(place * (min(len(content), 120 if near_the_start else len(content)) - 1))] ^= change
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(content)
    assert what_is_wrong(jail.encode(str(path)), str(path), None) is None


def test_an_image_too_large_for_the_memory_is_named(jail, tmp_path):
    # just under the limit of Pillow, which images of telescopes come near
    (case,) = write_files(tmp_path, [("large.png", make_png(13000, 13000, zeros(13000 * 13001)), None)])
    found = jail.encode(case.path, megabytes=300)
    assert found["error"] == "MemoryError"
    assert case.path in found["message"]
    assert "too large for the memory" in found["message"]


@pytest.mark.parametrize(("height", "width"), [(1, 10000), (10000, 1), (3, 1000)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_strips_are_encoded_by_every_preprocessing_in_little_memory(tmp_path, height, width, resize_mode, precision):
    config = copy.deepcopy(MODEL_CONFIG)
    config["preprocess_cfg"]["resize_mode"] = resize_mode
    model = f"local-dir:{make_model_folder(tmp_path / 'model', 3, config)}"
    encoder = CLIPEncoder(model, memory=False, n_threads=1, precision=precision)
    strip = np.tile(np.arange(256, dtype=np.uint8), 200)[: height * width].reshape(height, width)
    geometry = encoder._load().geometry
    made: list[int] = []

    by_pillow, by_torch = Image.Image.resize, torch.nn.functional.interpolate

    def count_pillow(self, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return by_pillow(self, size, *args, **kwargs)

    def count_torch(pixels, size, **kwargs):
        made.append(size[0] * size[1])
        return by_torch(pixels, size=size, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", count_pillow)
        patch.setattr(torch.nn.functional, "interpolate", count_torch)
        geometry(load_image(strip))
    assert 0 < max(made) <= 64 * 64 * 50
    assert np.isfinite(encoder.encode_image([strip])).all()


def test_skipping_leaves_out_the_bad_and_encodes_the_others(tmp_path):
    cases = [case for case in write_files(tmp_path, strange(PIXELS)) if case.wanted is not None]
    encoder = CLIPEncoder("tiny", memory=False, precision="fp32", device="cpu", n_threads=2, on_error="skip")
    with pytest.warns(UserWarning, match=r"Skipped \d+ of \d+ images"):
        features = encoder.encode_image([case.path for case in cases])
    refused = [i for i, case in enumerate(cases) if isinstance(case.wanted, str)]
    assert [index for index, _, _ in encoder.skipped_] == refused
    assert np.flatnonzero(np.isnan(features).any(1)).tolist() == refused
    good = [i for i, case in enumerate(cases) if not isinstance(case.wanted, str)]
    np.testing.assert_allclose(features[good], tiny().encode_image([cases[i].wanted for i in good]), atol=1e-5)


def test_a_folder_of_images_may_hold_loops_and_pipes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encode_as(PIXELS, "PNG"))
        (tmp_path / name / "up").symlink_to(tmp_path)
        (tmp_path / name / "self.png").symlink_to("self.png")
        os.mkfifo(tmp_path / name / "pipe.jpg")
    (tmp_path / "loop").symlink_to("loop")
    data = load_image_folder(tmp_path)
    names = sorted({Path(path).name for path in data.paths})
    assert names == ["1.png", "pipe.jpg", "self.png"]
    with pytest.raises(ImageError, match=r"4 of 6 images can't be read") as caught:
        XMAdapterClassifier("tiny").fit(data.paths, data.target)
    assert "pipe, socket or device" in str(caught.value)
    assert "leads to no file" in str(caught.value)


def test_a_file_without_permission_is_named(tmp_path):
    (tmp_path / "secret.png").write_bytes(encode_as(PIXELS, "PNG"))
    (tmp_path / "secret.png").chmod(0)
    tmp_path.chmod(0o755)
    script = (
        "import os\nfrom skxma.images import load_image\n"
        "from skxma.images._content_key import content_key\nfrom skxma.images._reading import check_header\n"
        "if os.geteuid() == 0:\n    os.seteuid(65534)\n"
        "for read in (load_image, check_header, content_key):\n"
        "    try:\n        read('secret.png', 4)\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    # a folder above may be closed to all but root, so the name is relative
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["ImageError image 4 ('secret.png'): no permission to read the file"] * 3


def test_names_that_are_no_text_pass_through_the_command_line(tmp_path, monkeypatch, capsys):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            (tmp_path / name / f"{seed}.png").write_bytes(encode_as(make_pixels(seed + 2 * (name == "cat")), "PNG"))
    query = bytes(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(query)).write_bytes(encode_as(PIXELS, "PNG"))
    model = str(tmp_path / "model.joblib")
    assert main(["fit", str(tmp_path), "--model", model, "--encoder", "tiny"]) == 0
    for form in ("table", "csv", "json"):
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert main(["predict", model, os.fsdecode(query), "--format", form]) == 0
        # JSON is text, in which a byte that is none is escaped
        assert (rb"caf\udce9.png" if form == "json" else b"caf\xe9.png") in out.buffer.getvalue()
    (tmp_path / "dog").rename(os.fsdecode(bytes(tmp_path) + b"/chi\xe9n"))
    assert main(["fit", str(tmp_path), "--model", model, "--encoder", "tiny", "--force"]) == 1
    assert r"A class name must be text, got 'chi\udce9n'" in capsys.readouterr().err
