"""Messages of the package as the page words them: facts, and advice that its user can follow."""

import re

import numpy as np
import pytest
from PIL import Image

from skxma import CLIPEncoder, XMAdapterClassifier, load
from skxma.app._wording import is_expected, without_code, words_of, words_of_warning
from skxma.encoder._checkpoints import TINY_FOLDER
from skxma.errors import OutOfMemoryError, WeightsError
from skxma.images import load_image

PYTHON = re.compile(r"\w\(\w|\w=\S|\.\w+\(|set_params|class_names|joblib|\bpass\b", re.IGNORECASE)


def unknown_encoder(folder):
    CLIPEncoder("ViT-B-23/openai").fingerprint  # noqa: B018


def no_such_folder(folder):
    CLIPEncoder(f"local-dir:{folder}/none").fingerprint  # noqa: B018


def no_weights_here(folder):
    CLIPEncoder("hf-hub:nobody/nothing", local_files_only=True, cache_dir=folder).fingerprint  # noqa: B018


def damaged_weights(folder):
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(b"none")
    CLIPEncoder(f"local-dir:{folder}").fingerprint  # noqa: B018


def no_such_device(folder):
    CLIPEncoder("tiny", device="cuda:99").encode_text(["a"])


def too_many_pixels(folder):
    Image.new("1", (20_000, 20_000)).save(folder / "a.png")
    load_image(folder / "a.png")


def no_image(folder):
    (folder / "a.png").write_bytes(b"none")
    load_image(folder / "a.png")


def a_pickle(folder):
    (folder / "m.skxma").write_bytes(b"\x80\x04")
    load(folder / "m.skxma")


def another_encoder(folder):
    X = np.eye(4, dtype=np.float32)
    clf = XMAdapterClassifier("precomputed").fit(X, list("aabb"))
    clf.encoder_fingerprint_ = "other"
    clf.set_params(encoder="tiny").predict([np.zeros((8, 8, 3), dtype=np.uint8)])


@pytest.mark.parametrize(
    ("fail", "facts"),
    [
        (unknown_encoder, "'ViT-B-23/openai'. Did you mean ViT-B-32/openai? To use another, stop skxma app"),
        (no_such_folder, "no such folder"),
        (no_weights_here, "'nobody/nothing'"),
        (damaged_weights, "could not be loaded"),
        (no_such_device, "'cuda:99'"),
        (too_many_pixels, "too many pixels; make it smaller"),
        (no_image, "not an image"),
        (a_pickle, "is no model file of skxma but a pickle"),
        (another_encoder, "fitted with other weights"),
    ],
)
def test_an_error_keeps_its_facts_and_loses_its_python(fail, facts, tmp_path):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each has a kind of its own
        fail(tmp_path)
    assert is_expected(raised.value)
    words = words_of(raised.value)
    assert facts in words
    assert PYTHON.search(words) is None, words
    assert words[-1] in ".?"


@pytest.mark.parametrize("fail", [unknown_encoder, no_such_folder, no_weights_here, damaged_weights])
def test_advice_for_the_encoder_is_a_command(fail, tmp_path, capsys):
    from skxma.cli import main

    with pytest.raises(Exception) as raised:  # noqa: PT011
        fail(tmp_path)
    commands = re.findall("`skxma (app [^`]*)`", words_of(raised.value))
    assert commands
    for command in commands:
        # understood, up to the address that it can't have
        assert main([*command.replace("FOLDER", str(TINY_FOLDER)).split(), "--port", "70000"]) == 1
        assert "Port 70000 is none" in capsys.readouterr().err


def test_too_little_memory_is_answered_with_commands():
    words = words_of(OutOfMemoryError("model='x' ran out of memory on cuda with a batch of 1; pass device='cpu'."))
    assert words.startswith("The encoder 'x' ran out of memory on cuda with a batch of 1.")
    assert "`skxma app --device cpu`" in words


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    error = ImportError("model='x' needs transformers: pip install transformers")
    assert "The encoder 'x' needs transformers: pip install transformers." in words_of(error)


def test_an_error_of_our_own_is_not_hidden():
    assert not is_expected(ZeroDivisionError("division by zero"))
    assert "skxma itself (ZeroDivisionError: division by zero)" in words_of(ZeroDivisionError("division by zero"))


def test_a_message_of_nothing_but_code_becomes_a_sentence():
    assert without_code("pass list(X)") == "skxma refuses this; the terminal of skxma app shows more."


@pytest.mark.parametrize(
    ("names", "start"), [(["fox", "a sleepy fox " * 9], "The name “a sleepy fox "), (["bear"], "A name is longer")]
)
def test_a_name_that_is_too_long_is_named(names, start):
    text = "7 prompts are longer than the 24 tokens that the model reads; the rest of each is ignored, e.g. of 'a "
    words = words_of_warning(f"{text}{'a sleepy fox ' * 9}'. Shorten it, or pass several prompts.", names)
    assert words.startswith(start)
    assert PYTHON.search(words) is None


def test_missing_weights_are_worded_without_the_commands_of_a_terminal():
    from skxma.encoder._checkpoints import _describe

    reason = "the hub can't be reached from this machine: no route"
    words = words_of(WeightsError(_describe("a/b", ["w.bin"], "local-dir:DIR", reason)))
    assert words.startswith("Could not get w.bin of 'a/b': the hub can't be reached from this machine: no route.")
    assert "hf download" not in words
    assert words.count("local-dir:") == 1
