import copy
import os
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from small_clip import MODEL_CONFIG, make_model_folder, make_pixels, reference

from skxma import CLIPEncoder
from skxma.encoder import _clip_encoder as encoder
from skxma.images._content_key import content_key
from skxma.store._memory import MemoryStore

RELAXED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_embeddings_are_those_of_open_clip(encoder, random_model, mode_files):
    files = list(mode_files.values())
    embeddings = encoder.encode_image(files)
    assert embeddings.shape == (len(files), 32)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, reference(random_model, files), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_every_preprocessing_is_that_of_open_clip(tmp_path, image_files, resize_mode):
    config = copy.deepcopy(MODEL_CONFIG)
    config["preprocess_cfg"] |= {"resize_mode": resize_mode, "interpolation": "bilinear", "fill_color": 7}
    model = f"local-dir:{make_model_folder(tmp_path / 'model', seed=3, config=config)}"
    embeddings = CLIPEncoder(model, precision="fp32", memory=False).encode_image(image_files)
    np.testing.assert_allclose(embeddings, reference(model, image_files), atol=1e-6)


def test_model_is_frozen_and_in_evaluation_mode(encoder):
    model = encoder._load().model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_palette_image_is_embedded_as_its_rgb_form(encoder, mode_files):
    """open_clip would resize the palette's indices."""
    palette = mode_files["palette.png"]
    np.testing.assert_allclose(
        encoder.encode_image([palette]), encoder.encode_image([Image.open(palette).convert("RGB")]), atol=1e-6
    )


def test_exif_rotated_images_are_embedded_upright(encoder, mode_files, pixels):
    turned = encoder.encode_image([mode_files["exif_6.png"], np.rot90(pixels, -1), pixels])
    np.testing.assert_allclose(turned[0], turned[1], atol=1e-6)
    assert np.abs(turned[0] - turned[2]).max() > 1e-3


def test_sixteen_bit_gray_is_embedded_as_its_eight_bit_form(encoder, mode_files):
    wide, narrow = encoder.encode_image([mode_files["gray_16.png"], mode_files["gray.png"]])
    np.testing.assert_allclose(wide, narrow, atol=1e-6)


def test_prompts_are_those_of_open_clip(encoder, random_model):
    import open_clip

    clip, _ = open_clip.create_model_from_pretrained(random_model)
    clip.eval()
    prompts = ["a photo of a cat.", "a dog", "a horse"]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(random_model)(prompts)
        expected = torch.nn.functional.normalize(clip.encode_text(tokens), dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode_text(prompts), expected, atol=1e-6)


def test_prompts_that_are_cut_are_warned_of(encoder):
    just_fits = "a " * 22
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_text([just_fits])
    with pytest.warns(UserWarning, match="1 prompts are longer than the 24 tokens.*a a a b"):
        cut = encoder.encode_text(["short", just_fits + "b"])
    np.testing.assert_allclose(cut[1], encoder.encode_text([just_fits])[0], atol=1e-6)


def test_zero_shot_weights_are_normalized_means(encoder):
    weights = encoder.zero_shot_weights(["cat", ["sofa", "couch"]], ["a {}.", "the {}!"])
    expected = encoder.encode_text(["a sofa.", "the sofa!", "a couch.", "the couch!"]).mean(axis=0)
    np.testing.assert_allclose(weights[1], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, atol=1e-6)
    assert weights.fingerprint == encoder.fingerprint


def test_prompts_are_kept_batch_by_batch(encoder, monkeypatch):
    names = [f"word {i}" for i in range(9)]
    expected = clone(encoder).set_params(memory=False).zero_shot_weights(names, "simple")
    forward = CLIPEncoder._forward_texts
    passed = []

    def interrupt(self, texts):
        if len(passed) > 40:
            raise KeyboardInterrupt
        passed.extend(texts)
        return forward(self, texts)

    encoder.set_params(batch_size=10)
    with monkeypatch.context() as patch:
        patch.setattr(CLIPEncoder, "_forward_texts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encoder.zero_shot_weights(names, "simple")
    assert encoder.memory.info()["n_embeddings"] == 6
    np.testing.assert_allclose(encoder.zero_shot_weights(names, "simple"), expected, atol=1e-6)


def test_a_single_class_name_is_refused(encoder):
    with pytest.raises(TypeError, match="wrap it"):
        encoder.zero_shot_weights("cat")


def test_empty_input_gives_no_rows(encoder):
    assert encoder.encode_image([]).shape == (0, 32)
    assert encoder.encode_text([]).shape == (0, 32)


def test_scale_and_width_are_the_models(encoder):
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert encoder.n_features == 32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close(random_model, image_files, precision):
    full, low = (
        CLIPEncoder(random_model, precision=p, memory=False, device="cpu").encode_image(image_files)
        for p in ("fp32", precision)
    )
    assert low.dtype == np.float32
    assert (full * low).sum(axis=1).min() > 0.999
    assert np.abs(full - low).max() > 0


def test_low_precision_stays_close_with_trained_weights(image_files):
    full, low = (CLIPEncoder("tiny", precision=p, memory=False) for p in ("fp32", "bf16"))
    images = (full.encode_image(image_files) * low.encode_image(image_files)).sum(axis=1)
    names = ["a cat", "a house", "the sun"]
    texts = (full.encode_text(names) * low.encode_text(names)).sum(axis=1)
    assert min(images.min(), texts.min()) > 0.998
    assert full.fingerprint == low.fingerprint


@pytest.mark.parametrize(
    "vision", [{"layers": 2, "width": 64, "patch_size": 16}, {"layers": [1, 1, 1, 1], "width": 16}]
)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_native_transformers_and_resnets_run_in_every_precision(tmp_path, image_files, vision, quick_gelu):
    config = copy.deepcopy(MODEL_CONFIG)
    del config["model_cfg"]["custom_text"]
    config["model_cfg"]["vision_cfg"] = {**vision, "image_size": 64}
    config["model_cfg"]["quick_gelu"] = quick_gelu
    model = f"local-dir:{make_model_folder(tmp_path / 'model', seed=5, config=config)}"
    full = CLIPEncoder(model, precision="fp32", memory=False).encode_image(image_files)
    np.testing.assert_allclose(full, reference(model, image_files), atol=1e-5)
    low = CLIPEncoder(model, precision="bf16", memory=False)
    assert (full * low.encode_image(image_files)).sum(axis=1).min() > 0.99
    texts = [CLIPEncoder(model, precision=p, memory=False).encode_text(["a cat"]) for p in ("fp32", "bf16")]
    assert (texts[0] * texts[1]).sum() > 0.99


@RELAXED
@given(batch_size=st.integers(1, 13), n_threads=st.integers(1, 5))
def test_batch_size_and_threads_change_nothing(encoder, image_files, batch_size, n_threads):
    expected = encoder.encode_image(image_files)
    other = clone(encoder).set_params(batch_size=batch_size, n_threads=n_threads, memory=False)
    np.testing.assert_allclose(other.encode_image(image_files), expected, atol=1e-5)


@RELAXED
@given(chosen=st.lists(st.integers(0, 11), min_size=1, max_size=20), n_views=st.sampled_from([1, 3]))
def test_order_subsets_and_repetitions_change_nothing(encoder, image_files, chosen, n_views):
    expected = encoder.encode_image(image_files, n_views=n_views, random_state=0)
    other = clone(encoder).set_params(memory=False)
    found = other.encode_image([image_files[i] for i in chosen], n_views=n_views, random_state=0)
    np.testing.assert_allclose(found, expected[chosen], atol=1e-5)


def test_identical_images_are_encoded_once(encoder, forwarded, tmp_path, pixels, image_files):
    twin = tmp_path / "twin.png"
    twin.write_bytes(Path(image_files[0]).read_bytes())
    embeddings = encoder.encode_image([image_files[0], twin, image_files[1], pixels, pixels.copy(), image_files[0]])
    assert sum(forwarded) == 3
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    np.testing.assert_array_equal(embeddings[3], embeddings[4])


def test_what_the_store_holds_is_not_encoded_again(encoder, forwarded, image_files):
    first = encoder.encode_image(image_files[:7])
    second = encoder.encode_image(image_files)
    assert sum(forwarded) == 12
    np.testing.assert_array_equal(first, second[:7])


def test_without_memory_all_is_encoded_again(random_model, forwarded, image_files):
    encoder = CLIPEncoder(random_model, memory=False)
    encoder.encode_image(image_files)
    encoder.encode_image(image_files)
    assert sum(forwarded) == 24


def test_changed_files_are_encoded_anew(encoder, forwarded, tmp_path):
    path = tmp_path / "changing.png"
    Image.fromarray(make_pixels(1)).save(path)
    before = encoder.encode_image([path])
    Image.fromarray(make_pixels(2)).save(path)
    after = encoder.encode_image([path])
    assert sum(forwarded) == 2
    assert np.abs(before - after).max() > 1e-3


def test_precisions_and_models_do_not_share_embeddings(random_model, other_model, forwarded, image_files):
    store = MemoryStore()
    for model, precision in ((random_model, "fp32"), (random_model, "bf16"), (other_model, "fp32")):
        CLIPEncoder(model, precision=precision, memory=store).encode_image(image_files)
    assert sum(forwarded) == 36


def test_no_image_is_encoded_twice_in_a_grid_search(random_model, forwarded, image_files):
    pipeline = make_pipeline(CLIPEncoder(random_model, memory=MemoryStore()), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1, 10]}, cv=3)
    search.fit(image_files, [0, 1] * 6)
    search.predict(image_files)
    assert sum(forwarded) == 12


def test_prompts_are_encoded_once(encoder, monkeypatch):
    passed = []
    forward = CLIPEncoder._forward_texts
    monkeypatch.setattr(CLIPEncoder, "_forward_texts", lambda self, texts: passed.extend(texts) or forward(self, texts))
    encoder.encode_text(["a", "b", "a"])
    clone(encoder).encode_text(["b", "c"])
    assert sorted(passed) == ["a", "b", "c"]
    encoder.zero_shot_weights(["cat", "dog"], "simple")
    clone(encoder).zero_shot_weights(["dog", "cat", "cow"], "simple")
    assert len(passed) == 3 + 3 * 7


def test_views_are_seeded_and_differ_from_the_plain_image(encoder, image_files):
    plain = encoder.encode_image(image_files)
    views, again, others = (encoder.encode_image(image_files, n_views=4, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(views, again)
    assert np.abs(views - others).max() > 1e-3
    assert np.abs(views - plain).max() > 1e-3
    assert np.median((views * plain).sum(axis=1)) > 0.9
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1, atol=1e-6)


def test_views_without_a_seed_vary_and_are_not_kept(encoder, forwarded, image_files):
    first, second = (encoder.encode_image(image_files[:3], n_views=2) for _ in range(2))
    assert sum(forwarded) == 12
    assert np.abs(first - second).max() > 1e-4
    assert encoder.memory.info()["n_embeddings"] == 0


def test_more_views_than_a_batch_holds(encoder, forwarded, image_files):
    small = clone(encoder).set_params(batch_size=4, memory=False)
    found = small.encode_image(image_files[:3], n_views=10, random_state=3)
    assert max(forwarded) == 4
    assert sum(forwarded) == 30
    expected = encoder.encode_image(image_files[:3], n_views=10, random_state=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("random_state", [-3, np.int64(5), np.random.RandomState(0), np.random.default_rng(0)])
def test_any_random_state_seeds_views(encoder, pixels, random_state):
    assert np.isfinite(encoder.encode_image([pixels], n_views=2, random_state=random_state)).all()


@pytest.mark.parametrize(("arguments", "error"), [({"n_views": 0}, ValueError), ({"n_views": 1.5}, ValueError)])
def test_wrong_number_of_views_is_refused(encoder, pixels, arguments, error):
    with pytest.raises(error, match="n_views"):
        encoder.encode_image([pixels], **arguments)


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    reads = []
    monkeypatch.setattr(encoder, "content_key", lambda *a: reads.append(a) or content_key(*a))

    def encode(shade):
        if shade is not None:
            Image.new("RGB", (40, 40), (shade, 0, 0)).save(file)
            os.utime(file, (1e9 + shade, 1e9 + shade))
        return CLIPEncoder("tiny").encode_image([file])

    first = encode(10)
    np.testing.assert_array_equal(encode(None), first)
    assert len(reads) == 1
    assert not np.allclose(encode(200), first)
    assert len(reads) == 2


class Numbered(Sequence):
    """Paths that are made when they are asked for, of files that are."""

    def __init__(self, folder, n):
        self.folder, self.n = folder, n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return str(self.folder / f"{index}.bmp")


def test_images_are_read_lazily_so_that_memory_does_not_grow_with_them(random_model, tmp_path, monkeypatch):
    few, many = 100, 500
    for i in range(many):
        Image.frombytes("RGB", (64, 64), i.to_bytes(4, "big") * 3072).save(tmp_path / f"{i}.bmp")
    width = CLIPEncoder(random_model)._load().n_features
    seen = []

    def forward(self, batch):
        seen.append(len(batch))
        return np.ones((len(batch), width), dtype=np.float32)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", forward)

    def peak(n):
        clip = CLIPEncoder(random_model, memory=False, batch_size=16, n_threads=2)
        tracemalloc.start()
        assert clip.encode_image(Numbered(tmp_path, n)).shape == (n, width)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(few)  # what is made once is made
    # the least of three, for threads of other tests allocate too
    least_few, least_many = (min(peak(n) for _ in range(3)) for n in (few, many))
    growth = (least_many - least_few) / (many - few)
    assert sum(seen) == 3 * many + 4 * few
    # a image takes 12 288 bytes; what grows is the result, a digest and a list entry of each
    assert growth < 4 * width + 1000


def test_a_model_says_whether_its_texts_shape_the_metric_before_it_is_loaded():
    assert not CLIPEncoder("tiny").text_shapes_metric
    assert not CLIPEncoder("photo").text_shapes_metric
    assert CLIPEncoder("ViT-B-32/openai").text_shapes_metric
