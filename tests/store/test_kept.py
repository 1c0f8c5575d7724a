import numpy as np
import pytest
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._estimators.vocabulary import common_words
from skxma.cli.main import main
from skxma.encoder._checkpoints import TINY_FOLDER
from skxma.store import _memory
from skxma.store._kept import kept_arrays, kept_files


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def fits(arrays):
    return arrays["rows"].shape == (2, 3)


def make():
    return {"rows": np.arange(6.0).reshape(2, 3)}


def never():
    raise AssertionError("made again")


def test_arrays_are_made_once_for_what_they_depend_on(cache):
    made = kept_arrays(("a", "b"), make, fits)
    np.testing.assert_array_equal(kept_arrays(("a", "b"), never, fits)["rows"], made["rows"])
    for other in (("a", "c"), ("ab",), ("a", "b", "")):
        with pytest.raises(AssertionError, match="made again"):
            kept_arrays(other, never, fits)
    assert len(kept_files(cache)) == 1


@pytest.mark.fault
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_or_unfitting_file_is_made_anew(cache, damage):
    kept_arrays(("a",), make, fits)
    (file,) = kept_files(cache)
    if damage is None:
        np.savez(file, rows=np.zeros(3))
    else:
        file.write_bytes(damage)
    np.testing.assert_array_equal(kept_arrays(("a",), make, fits)["rows"], make()["rows"])
    np.testing.assert_array_equal(kept_arrays(("a",), never, fits)["rows"], make()["rows"])


@pytest.mark.fault
def test_without_a_place_to_write_nothing_is_said(monkeypatch, tmp_path, recwarn):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "file" / "below"))
    np.testing.assert_array_equal(kept_arrays(("a",), make, fits)["rows"], make()["rows"])
    assert not recwarn.list


# the bundled model by another name, as which it is one whose words shape the metric
WORDS_COUNT = f"local-dir:{TINY_FOLDER}"


def fit(**settings):
    images = [make_pixels(seed) for seed in range(4)]
    return XMAdapterClassifier(WORDS_COUNT, device="cpu", precision="fp32", **settings).fit(images, list("aabb"))


@pytest.fixture
def encoded(monkeypatch):
    """The prompts that pass the model, in a process that knows no embeddings yet."""
    prompts = []
    forward = CLIPEncoder._forward_texts
    monkeypatch.setattr(_memory, "_DEFAULT", _memory.MemoryStore())
    monkeypatch.setattr(
        CLIPEncoder, "_forward_texts", lambda self, texts: prompts.extend(texts) or forward(self, texts)
    )
    return prompts


def test_another_process_finds_the_common_words(cache, encoded, monkeypatch):
    first = fit()
    assert len(encoded) > len(common_words())
    encoded.clear()
    monkeypatch.setattr(_memory, "_DEFAULT", _memory.MemoryStore())
    second = fit()
    assert 0 < len(encoded) < 40, "the names of the classes alone"
    images = [make_pixels(9)]
    np.testing.assert_array_equal(second.predict_proba(images), first.predict_proba(images))


def test_memory_says_otherwise(cache, encoded):
    fit(memory=False)
    assert kept_files(cache) == []
    fit(memory=cache / "own")
    assert kept_files(cache) == []


def test_the_command_line_shows_and_forgets_them(cache, capsys):
    kept_arrays(("a",), make, fits)
    assert main(["cache", "info"]) == 0
    assert "1 files of what every model needs" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 1 files" in capsys.readouterr().out
    assert kept_files(cache) == []
