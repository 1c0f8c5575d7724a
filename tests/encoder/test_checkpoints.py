from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from skxma.encoder._checkpoints import fetch_checkpoint, fetch_folder
from skxma.errors import WeightsError


class Hub:
    """A hub of some files, of which some are in the cache; notes what was asked of the network."""

    def __init__(self, files=(), cached=(), error=None):
        self.files = set(files)
        self.cached = set(cached)
        self.error = error
        self.asked = []

    def __call__(self, repo, name, *, cache_dir=None, local_files_only=False):
        if name in self.cached:
            return f"/cache/{repo}/{name}"
        if local_files_only:
            raise LocalEntryNotFoundError(f"{name} is not cached")
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        if name not in self.files:
            error = EntryNotFoundError.__new__(EntryNotFoundError)
            raise error
        self.cached.add(name)
        return f"/cache/{repo}/{name}"


@pytest.fixture
def use_hub(monkeypatch):
    def use(hub):
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
        return hub

    return use


def test_a_repository_is_downloaded_once(use_hub):
    hub = use_hub(Hub(files=["open_clip_config.json", "open_clip_pytorch_model.bin"]))
    for _ in range(2):
        folder = fetch_folder("someone/clip", cache_dir=None, local_files_only=False)
        assert folder == Path("/cache/someone/clip")
    assert hub.asked == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
    ]


def test_a_cached_checkpoint_is_preferred_to_the_network(use_hub):
    hub = use_hub(Hub(files=["weights.safetensors"], cached=["weights.pt"]))
    path = fetch_checkpoint("someone/clip/weights.pt", cache_dir=None, local_files_only=False)
    assert path.name == "weights.pt"
    assert hub.asked == []


def test_safetensors_are_preferred_to_pickles(use_hub):
    use_hub(Hub(files=["weights.safetensors", "weights.pt"]))
    path = fetch_checkpoint("someone/clip/weights.pt", cache_dir=None, local_files_only=False)
    assert path.name == "weights.safetensors"


@pytest.mark.fault
def test_without_a_network_one_attempt_is_made_and_the_way_out_told(use_hub):
    hub = use_hub(Hub(error=LocalEntryNotFoundError("connection refused")))
    with pytest.raises(WeightsError, match=r"(?s)can't be reached.*connection refused.*local-dir:"):
        fetch_checkpoint("someone/clip/", cache_dir=None, local_files_only=False)
    assert hub.asked == ["open_clip_model.safetensors"]


@pytest.mark.fault
@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("gated")])
def test_other_failures_are_passed_on(use_hub, error):
    use_hub(Hub(error=error))
    with pytest.raises(WeightsError, match=str(error)) as caught:
        fetch_checkpoint("someone/clip/", cache_dir=None, local_files_only=False)
    assert caught.value.__cause__ is error


@pytest.mark.fault
def test_a_repository_without_weights_is_told(use_hub):
    use_hub(Hub(files=["open_clip_config.json"]))
    with pytest.raises(WeightsError, match="has none of these files"):
        fetch_folder("someone/clip", cache_dir=None, local_files_only=False)


def test_what_is_no_repository_is_told():
    with pytest.raises(WeightsError, match="no name of a hub repository"):
        fetch_folder("some one/clip?", cache_dir=None, local_files_only=True)
