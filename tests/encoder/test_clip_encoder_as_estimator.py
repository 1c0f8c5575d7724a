import io
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from small_clip import make_model_folder, make_pixels

from skxma import CLIPEncoder
from skxma.encoder import _clip_encoder, _model_cache
from skxma.encoder._model_cache import clear_models
from skxma.errors import ImageError, OutOfMemoryError
from skxma.store._sqlite import EmbeddingStore


def test_nothing_is_loaded_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(_clip_encoder, "load_once", None)
    encoder = CLIPEncoder("no/such-model", device="cuda:99", memory="/nowhere")
    assert clone(encoder).get_params() == encoder.get_params()
    assert encoder.fit().set_params(verbose=0) is encoder


def test_importing_skxma_loads_no_torch():
    code = "import sys, skxma; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_pickles_carry_no_weights(encoder, image_files):
    before = encoder.encode_image(image_files)
    dumped = pickle.dumps(encoder)
    assert len(dumped) < 2000
    np.testing.assert_array_equal(pickle.loads(dumped).set_params(memory=False).encode_image(image_files), before)


def test_clones_share_the_loaded_model_and_each_image_is_encoded_once(encoder, forwarded, image_files):
    copies = [clone(encoder) for _ in range(3)]
    for one in copies:
        one.encode_image(image_files)
    assert sum(forwarded) == 12
    assert len({id(one._load().model) for one in (encoder, *copies)}) == 1


def test_loaded_models_are_bounded_and_clearable(random_model, other_model):
    clear_models()
    for precision in ("fp32", "bf16"):
        for model in (random_model, other_model):
            assert CLIPEncoder(model, precision=precision).n_features == 32
    assert len(_model_cache._loaded) == _model_cache.MAX_LOADED
    clear_models()
    assert len(_model_cache._loaded) == 0


def test_changed_weights_are_loaded_anew(tmp_path):
    encoder = CLIPEncoder(f"local-dir:{make_model_folder(tmp_path / 'model', seed=0)}")
    before = encoder.fingerprint
    make_model_folder(tmp_path / "model", seed=1)
    assert encoder.fingerprint != before


def test_threads_load_once_and_agree(random_model, image_files, monkeypatch):
    clear_models()
    prepared = []
    prepare = _model_cache.prepare
    monkeypatch.setattr(_model_cache, "prepare", lambda *args: prepared.append(args) or prepare(*args))
    encoder = CLIPEncoder(random_model, precision="fp32", memory=False)
    results: dict[int, np.ndarray] = {}

    def work(i):
        results[i] = clone(encoder).encode_image(image_files)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prepared) == 1
    assert len(results) == 4
    for result in results.values():
        np.testing.assert_allclose(result, results[0], atol=1e-6)


def test_pandas_output(encoder, image_files):
    pandas = pytest.importorskip("pandas")
    frame = clone(encoder).set_output(transform="pandas").fit_transform(image_files)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(encoder.get_feature_names_out()) == [f"clipencoder{i}" for i in range(32)]


def test_tags_and_transform(encoder, image_files):
    tags = encoder.__sklearn_tags__()
    assert not tags.requires_fit
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    np.testing.assert_array_equal(encoder.transform(image_files), encoder.encode_image(image_files))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"precision": "fp8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "large"}, "batch_size"),
        ({"n_threads": 0}, "n_threads"),
        ({"on_error": "ignore"}, "on_error"),
        ({"model": None}, "model"),
        ({"memory": 3.5}, "memory"),
    ],
)
def test_wrong_parameters_are_refused_at_fit_and_use(random_model, pixels, params, match):
    encoder = CLIPEncoder(random_model).set_params(**params)
    for use in (encoder.fit, lambda: encoder.encode_image([pixels]), lambda: encoder.encode_text(["a"])):
        with pytest.raises(ValueError, match=match):
            use()


@pytest.mark.parametrize(("prompts", "match"), [("a cat", "wrap it"), (["a cat", 3], "prompt 1.*int")])
def test_wrong_prompts_are_refused(encoder, prompts, match):
    with pytest.raises(TypeError, match=match):
        encoder.encode_text(prompts)


@pytest.fixture
def with_bad_files(tmp_path, image_files) -> list[str]:
    """Twelve good files with a truncated one at 3 and one that is no image at 5."""
    buffer = io.BytesIO()
    Image.fromarray(make_pixels(50, 200, 200)).save(buffer, "PNG")
    (tmp_path / "truncated.png").write_bytes(buffer.getvalue()[:-300])
    (tmp_path / "text.png").write_text("no image")
    return [
        *image_files[:3],
        str(tmp_path / "truncated.png"),
        image_files[3],
        str(tmp_path / "text.png"),
        *image_files[4:],
    ]


@pytest.mark.fault
def test_a_broken_header_is_found_before_anything_is_encoded(encoder, forwarded, with_bad_files):
    with pytest.raises(ImageError, match=r"image 5 .*text\.png.*not an image"):
        encoder.encode_image(with_bad_files)
    assert forwarded == []


@pytest.mark.fault
def test_missing_files_are_found_first(encoder, forwarded, with_bad_files):
    with pytest.raises(ImageError, match="2 of 16"):
        encoder.encode_image([*with_bad_files, "missing_1.png", "missing_2.png"])
    assert forwarded == []


@pytest.mark.fault
def test_a_damaged_file_is_named_and_what_was_encoded_is_kept(encoder, forwarded, with_bad_files):
    files = [path for path in with_bad_files if not path.endswith("text.png")]
    encoder.set_params(batch_size=2)
    with pytest.raises(ImageError, match=r"image 3 .*truncated\.png") as caught:
        encoder.encode_image(files)
    assert caught.value.index == 3
    assert encoder.memory.info()["n_embeddings"] == sum(forwarded) == 2


@pytest.mark.fault
def test_bad_images_are_skipped_with_one_warning(encoder, with_bad_files, image_files):
    files = [*with_bad_files, "missing.png", with_bad_files[3]]
    encoder.set_params(on_error="skip", batch_size=3)
    with pytest.warns(UserWarning, match="Skipped 4 of 16") as caught:
        embeddings = encoder.encode_image(files)
    assert len(caught) == 1
    bad = [3, 5, 14, 15]
    assert [index for index, _, _ in encoder.skipped_] == bad
    assert [path for _, path, _ in encoder.skipped_] == [files[i] for i in bad]
    assert "no such file" in encoder.skipped_[2][2]
    assert all(f"image {i} " in str(caught[0].message) for i in bad)
    assert np.isnan(embeddings[bad]).all()
    good = [i for i in range(16) if i not in bad]
    np.testing.assert_allclose(embeddings[good], encoder.encode_image(image_files), atol=1e-6)
    assert encoder.skipped_ == []


def test_skipping_warns_of_nothing_when_all_is_well(encoder, image_files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(encoder).set_params(on_error="skip").encode_image(image_files)


@pytest.mark.fault
@pytest.mark.parametrize("device", ["cuda:99", "mps", "abacus"])
def test_absent_devices_are_refused(random_model, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    with pytest.raises(ValueError, match=f"device='{device}'"):
        CLIPEncoder(random_model, device=device).encode_text(["a"])


@pytest.mark.fault
def test_batches_halve_when_memory_runs_out(encoder, image_files, monkeypatch):
    expected = encoder.encode_image(image_files)
    sizes = []
    forward = CLIPEncoder._forward_images

    def run_out(self, batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", run_out)
    monkeypatch.setattr(encoder._load(), "max_batch", 8)
    other = clone(encoder).set_params(memory=False)
    np.testing.assert_allclose(other.encode_image(image_files), expected, atol=1e-5)
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[2:]) == 2
    with pytest.raises(OutOfMemoryError, match=r"with a batch of 6; pass batch_size='auto'") as caught:
        other.set_params(batch_size=6).encode_image(image_files)
    assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)


@pytest.mark.fault
def test_a_device_too_small_for_one_image_is_told_and_what_was_finished_is_kept(
    encoder, forwarded, image_files, tmp_path, monkeypatch
):
    encoder.set_params(memory=EmbeddingStore(tmp_path / "store"))
    monkeypatch.setattr(encoder._load(), "max_batch", 4)
    forward = CLIPEncoder._forward_images

    def run_out(self, batch):
        if len(forwarded) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CLIPEncoder, "_forward_images", run_out)
        with pytest.raises(OutOfMemoryError, match=r"with a batch of 1; pass a smaller encoder.*are kept"):
            encoder.encode_image(image_files)
    encoder.encode_image(image_files)
    assert sum(forwarded) == 12


def test_other_errors_of_the_device_are_passed_on(encoder, image_files, monkeypatch):
    def fail(self, batch):
        raise RuntimeError("an illegal instruction")

    monkeypatch.setattr(CLIPEncoder, "_forward_images", fail)
    with pytest.raises(RuntimeError, match="an illegal instruction"):
        encoder.encode_image(image_files)


@pytest.mark.fault
def test_an_interruption_loses_nothing_finished(encoder, forwarded, image_files, tmp_path, monkeypatch):
    encoder.set_params(batch_size=3, memory=EmbeddingStore(tmp_path / "store"))
    counted = CLIPEncoder._forward_images

    def interrupt(self, batch):
        if len(forwarded) == 2:
            raise KeyboardInterrupt
        return counted(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CLIPEncoder, "_forward_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode_image(image_files)
    encoder.encode_image(image_files)
    assert sum(forwarded) == 12


def test_output_is_silent_unless_asked_for(encoder, image_files, capsys):
    encoder.encode_image(image_files)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    clone(encoder).set_params(verbose=1, memory=False).encode_image(image_files)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "encoding images 12/12" in captured.err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
def test_gpu_agrees_with_cpu(random_model, image_files, precision):
    cpu = CLIPEncoder(random_model, device="cpu", precision="fp32", memory=False)
    gpu = CLIPEncoder(random_model, device="cuda", precision=precision, memory=False)
    assert gpu.fingerprint == cpu.fingerprint
    assert (cpu.encode_image(image_files) * gpu.encode_image(image_files)).sum(axis=1).min() > 0.999
    assert (cpu.encode_text(["a cat"]) * gpu.encode_text(["a cat"])).sum() > 0.999
    views = [one.encode_image(image_files, n_views=3, random_state=0) for one in (cpu, gpu)]
    assert (views[0] * views[1]).sum(axis=1).min() > 0.999
