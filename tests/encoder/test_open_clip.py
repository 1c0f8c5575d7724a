import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import MODEL_CONFIG, make_model_folder

from skxma import CLIPEncoder
from skxma.encoder._model_cache import clear_models
from skxma.errors import EncoderNotFoundError, WeightsError
from skxma.images._reading import load_image


def test_fingerprint_is_of_the_content_not_of_place_or_precision(tmp_path, random_model, other_model):
    fingerprints = {CLIPEncoder(random_model, precision=p).fingerprint for p in ("fp32", "bf16", "fp16")}
    moved = make_model_folder(tmp_path / "moved", seed=0)
    fingerprints.add(CLIPEncoder(f"local-dir:{moved}").fingerprint)
    assert len(fingerprints) == 1
    assert CLIPEncoder(other_model).fingerprint not in fingerprints


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]),
        lambda config: config["preprocess_cfg"].update(resize_mode="squash"),
        lambda config: config["model_cfg"].update(quick_gelu=True),
    ],
)
def test_fingerprint_changes_with_what_changes_embeddings(tmp_path, change):
    folder = make_model_folder(tmp_path / "model", seed=0)
    before = CLIPEncoder(f"local-dir:{folder}").fingerprint
    config = json.loads((folder / "open_clip_config.json").read_text())
    change(config)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert CLIPEncoder(f"local-dir:{folder}").fingerprint != before


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("ViT-B-32", r"names no weights.*laion2b_s34b_b79k"),
        ("ViT-B-32/laion2b_s34b_b79", r"Did you mean ViT-B-32/laion2b_s34b_b79k\?.*openai"),
        ("Vit-B-32/openai", r"did you mean (.* or )?ViT-B-32/openai( or .*)?\?"),
        ("Vit-B-32/mine", "did you mean ViT-B-32/<tag>"),
        ("laion/CLIP-ViT-B-32", "hf-hub:laion/CLIP-ViT-B-32"),
        ("tinny", "'tiny'"),
        ("", "is unknown"),
    ],
)
def test_unknown_names_are_met_with_suggestions(model, match):
    with pytest.raises(EncoderNotFoundError, match=match):
        CLIPEncoder(model).encode_text(["a"])


def test_the_bare_path_of_a_folder_is_met_with_the_right_form(random_model):
    path = random_model.removeprefix("local-dir:")
    with pytest.raises(EncoderNotFoundError, match=r"'local-dir:[^']*'"):
        CLIPEncoder(path).encode_text(["a"])


@pytest.mark.fault
@pytest.mark.parametrize("model", ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"])
def test_offline_error_is_quick_and_says_what_to_do(tmp_path, monkeypatch, model):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    CLIPEncoder("tinny")  # open_clip's import is not what is timed
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"(?s)local_files_only.*local-dir:.*HF_HOME") as caught:
        CLIPEncoder(model, local_files_only=True, cache_dir=tmp_path).encode_text(["a"])
    assert time.monotonic() - start < 2
    assert "laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in str(caught.value)
    assert isinstance(caught.value, OSError)


@pytest.mark.fault
@pytest.mark.slow
def test_the_hubs_offline_variable_is_respected_quickly(tmp_path):
    code = """
        import time
        from skxma import CLIPEncoder
        from skxma.errors import WeightsError
        import skxma.encoder._open_clip
        skxma.encoder._open_clip._open_clip()
        start = time.monotonic()
        try:
            CLIPEncoder().encode_text(["a"])
        except WeightsError as error:
            assert "local-dir:" in str(error)
        else:
            raise SystemExit("no error")
        print(time.monotonic() - start)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2


def fill_hub_cache(cache: Path, repo: str, files: list[Path]) -> None:
    """Lay files into a hub's cache as a download does."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for file in files:
        (snapshot / file.name).write_bytes(file.read_bytes())


def test_a_repository_in_the_cache_needs_no_network(tmp_path, random_model, image_files):
    folder = Path(random_model.removeprefix("local-dir:"))
    fill_hub_cache(tmp_path, "someone/some-clip", list(folder.iterdir()))
    for local_files_only in (True, False):
        hub = CLIPEncoder("hf-hub:someone/some-clip", cache_dir=tmp_path, local_files_only=local_files_only)
        assert hub.fingerprint == CLIPEncoder(random_model).fingerprint


@pytest.mark.parametrize("local_files_only", [True, False])
def test_nothing_that_open_clip_looks_up_itself_may_use_the_network(random_model, monkeypatch, local_files_only):
    import open_clip
    from huggingface_hub import constants

    clear_models()
    offline = []
    get_tokenizer = open_clip.get_tokenizer
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        open_clip,
        "get_tokenizer",
        lambda *args, **kwargs: offline.append(constants.HF_HUB_OFFLINE) or get_tokenizer(*args, **kwargs),
    )
    assert CLIPEncoder(random_model, local_files_only=local_files_only).n_features == 32
    assert offline == [local_files_only]
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.slow
def test_registry_weights_keep_their_activation_mean_and_deviation(tmp_path, image_files):
    """RN50/openai needs QuickGELU, which open_clip only warns of when it is given a file."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model("RN50", force_quick_gelu=True)
    weights = tmp_path / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    fill_hub_cache(tmp_path / "cache", "timm/resnet50_clip.openai", [weights])
    encoder = CLIPEncoder("RN50/openai", cache_dir=tmp_path / "cache", local_files_only=True, precision="fp32")
    loaded = encoder._load()
    assert any(type(module).__name__ == "QuickGELU" for module in loaded.model.modules())
    assert loaded.channels_last
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    with torch.inference_mode():
        batch = torch.stack([transform(load_image(path)) for path in image_files[:2]])
        expected = torch.nn.functional.normalize(model.eval().encode_image(batch), dim=-1)
    np.testing.assert_allclose(encoder.encode_image(image_files[:2]), expected, atol=1e-5)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("break_", "match"),
    [
        (lambda folder: (folder / "open_clip_config.json").unlink(), "holds no open_clip_config.json"),
        (lambda folder: (folder / "open_clip_model.safetensors").unlink(), "contains no weights"),
        (lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"damaged"), "damaged or don't fit"),
        (lambda folder: (folder / "open_clip_config.json").write_text("{"), "damaged or don't fit"),
        (
            lambda folder: (folder / "open_clip_config.json").write_text(
                json.dumps({**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"], "embed_dim": 64}})
            ),
            "damaged or don't fit",
        ),
    ],
)
def test_broken_folders_raise_instead_of_staying_random(tmp_path, break_, match):
    folder = make_model_folder(tmp_path / "model", seed=0)
    break_(folder)
    with pytest.raises(WeightsError, match=match):
        CLIPEncoder(f"local-dir:{folder}").encode_text(["a"])


@pytest.mark.parametrize("where", ["tokenizer_kwargs", "anything"])
def test_a_configuration_that_would_run_code_is_refused(tmp_path, where):
    folder = make_model_folder(tmp_path / "model", seed=0)
    config = json.loads(json.dumps(MODEL_CONFIG))
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", where: {"trust_remote_code": True}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="asks to run code"):
        CLIPEncoder(f"local-dir:{folder}").encode_text(["a"])


@pytest.mark.fault
def test_missing_folder(tmp_path):
    with pytest.raises(WeightsError, match="no such folder"):
        CLIPEncoder(f"local-dir:{tmp_path / 'nowhere'}").encode_text(["a"])


def test_loading_leaves_the_root_logger_alone(random_model, monkeypatch, capsys):
    """`logging.info`, as open_clip calls it, would install a handler on a root logger that has none."""
    clear_models()
    monkeypatch.setattr(logging.root, "handlers", [])
    assert CLIPEncoder(random_model).n_features == 32
    assert logging.root.handlers == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
