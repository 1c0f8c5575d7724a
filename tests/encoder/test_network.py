"""A machine without a way to the hub is told so at once; a slow one is left to the hub's client."""

import errno
import logging
import re
import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.cli.main import main
from skxma.encoder import _network
from skxma.encoder._checkpoints import fetch_checkpoint
from skxma.encoder._network import unreachable_reason
from skxma.errors import WeightsError

pytestmark = pytest.mark.fault


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No name is known, as on a machine without a network; returns the questions."""
    asked = []

    def unknown(host, *args, **kwargs):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.mark.parametrize("model", ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"])
def test_without_a_route_there_is_one_line_at_once(offline, tmp_path, caplog, capsys, model):
    from skxma.encoder._model_names import find_source

    find_source(model)  # open_clip's import is not what is timed
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError, match="Name or service not known") as caught:
        CLIPEncoder(model, cache_dir=tmp_path).encode_text(["a"])
    assert time.monotonic() - start < 2
    assert len(offline) <= 2
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
    message = str(caught.value)
    assert "\n" not in message
    for way in ("hf download", "local-dir:", "HF_HOME", "'tiny'"):
        assert way in message
    assert caught.value.__cause__ is None


def test_the_ways_on_work(offline, tmp_path, random_model, pixels):
    with pytest.raises(WeightsError) as caught:
        CLIPEncoder("hf-hub:someone/clip", cache_dir=tmp_path).encode_image([pixels])
    message = str(caught.value)
    found = re.search(r"name the encoder '(local-dir:DIR)'", message)
    assert found
    shutil.copytree(random_model.removeprefix("local-dir:"), tmp_path / "DIR")
    by_folder = found[1].replace("DIR", str(tmp_path / "DIR"))
    assert CLIPEncoder(by_folder).encode_image([pixels]).shape == (1, 32)
    found = re.search(r"the encoder '(\w+)' is bundled", message)
    assert found
    assert CLIPEncoder(found[1]).encode_image([pixels]).shape == (1, 128)
    assert XMAdapterClassifier(found[1]).fit([pixels, pixels[::-1]], ["a", "b"]).classes_.tolist() == ["a", "b"]


def test_the_command_line_says_it_in_one_line(offline, tmp_path, monkeypatch, capsys, image_files):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for i, path in enumerate(image_files[:4]):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    arguments = ["fit", str(tmp_path / "data"), "--encoder", "hf-hub:nobody/nothing-here"]
    assert main([*arguments, "--model", str(tmp_path / "m.skxma")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "the hub can't be reached from this machine" in err
    assert "model=" not in err


def fail_with(monkeypatch, *errors):
    left = list(errors)
    asked = []

    def answer(url, **options):
        asked.append(url)
        error = left.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    monkeypatch.setattr(_network, "_PAUSE_SECONDS", 0)
    return asked


def wrapped(inner: Exception, how: str) -> Exception:
    """As the hub's clients of today and of before wrap an error of the system."""
    if how == "cause":
        try:
            raise ConnectionError("failed") from inner
        except ConnectionError as error:
            return error
    return OSError(type("MaxRetryError", (Exception,), {"reason": inner})("retried"))


@pytest.mark.parametrize("how", ["cause", "argument"])
@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED])
def test_every_client_and_every_reason_is_seen_through(monkeypatch, how, number):
    fail_with(monkeypatch, wrapped(OSError(number, "no way"), how))
    assert "no way" in str(unreachable_reason("a/b", "c"))


@pytest.mark.parametrize(
    "error",
    [
        None,
        TimeoutError("slow"),
        wrapped(TimeoutError(errno.ETIMEDOUT, "slow"), "cause"),
        ValueError("500"),
        OSError("x"),
    ],
)
def test_a_slow_or_failing_hub_is_left_to_its_client(monkeypatch, error):
    fail_with(monkeypatch, error)
    assert unreachable_reason("a/b", "c") is None
    fail_with(monkeypatch, error)
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda repo, name, local_files_only=False, **_: _or_absent(name, local_files_only),
    )
    assert fetch_checkpoint("a/b/w.safetensors", cache_dir=None, local_files_only=False) == Path("/cache/w.safetensors")


def _or_absent(name, local_files_only):
    if local_files_only:
        raise huggingface_hub.errors.LocalEntryNotFoundError("absent")
    return f"/cache/{name}"


def test_a_busy_name_server_is_asked_twice(monkeypatch):
    busy = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    asked = fail_with(monkeypatch, busy, None)
    assert unreachable_reason("a/b", "c") is None
    assert len(asked) == 2
    asked = fail_with(monkeypatch, busy, busy)
    assert "Temporary failure" in str(unreachable_reason("a/b", "c"))
    assert len(asked) == 2


def test_the_hub_is_asked_by_its_own_client_at_its_own_address(monkeypatch):
    asked = fail_with(monkeypatch, None)
    unreachable_reason("organization/name", "file.bin")
    assert asked == [huggingface_hub.hf_hub_url("organization/name", "file.bin")]
