import json
from pathlib import Path

import numpy as np
import pytest
import torch

import skxma
from skxma import XMAdapterClassifier
from skxma._estimators.vocabulary import common_words
from skxma._evidence.calibrated.metric import IDENTITY_ROOT, VOCABULARY_ROOT
from skxma.datasets import load_emoji
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.prompts import TEMPLATES

TINY = Path(skxma.__file__).parent / "encoder" / "tiny"


@pytest.fixture(scope="module")
def emoji():
    return load_emoji()


@pytest.fixture(scope="module")
def encoder():
    return CLIPEncoder("tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def features(encoder, emoji):
    return np.asarray(encoder.encode_image(emoji.images))


def _text_features(encoder, names, templates):
    prompts = [template.replace("{}", name) for name in names for template in templates]
    texts = np.asarray(encoder.encode_text(prompts)).reshape(len(names), len(templates), -1).mean(1)
    return texts / np.linalg.norm(texts, axis=1, keepdims=True)


def test_files_are_small():
    assert {path.name for path in TINY.iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 16_000_000


def test_loads_through_open_clip_alone(emoji, features):
    from skxma.encoder._torchvision_compat import ensure_importable

    ensure_importable()
    import open_clip
    from PIL import Image

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{TINY}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 1 < model.logit_scale.exp().item() <= 100.001
    tokens = open_clip.get_tokenizer(f"local-dir:{TINY}")(["a photo of a fox."])
    assert tokens.shape == (1, 24)
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.fromarray(image)) for image in emoji.images[:4]])
        theirs = model.eval().encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(theirs, features[:4], atol=1e-4)


def test_weights_are_half_precision_and_finite():
    from safetensors.numpy import load_file

    state = load_file(TINY / "open_clip_model.safetensors")
    floats = [array for array in state.values() if array.dtype.kind == "f"]
    assert {array.dtype.name for array in floats} == {"float16"}
    assert all(np.isfinite(array).all() for array in floats)


def test_preprocessing_is_stated():
    config = json.loads((TINY / "open_clip_config.json").read_text(encoding="utf-8"))
    assert set(config["preprocess_cfg"]) == {"mean", "std", "interpolation", "resize_mode"}
    assert config["model_cfg"]["vision_cfg"]["image_size"] == 64


def test_every_template_fits_the_context(encoder, emoji):
    from skxma.encoder._torchvision_compat import ensure_importable

    ensure_importable()
    from open_clip import SimpleTokenizer

    longest = max(emoji.target_names, key=len)
    tokens = SimpleTokenizer(context_length=77)([t.replace("{}", longest) for t in TEMPLATES["imagenet"]])
    assert (tokens != 0).sum(1).max() <= 24


@pytest.mark.parametrize(("templates", "floor"), [("bare", 0.2), ("photo", 0.2), ("imagenet", 0.2)])
def test_zero_shot_is_far_above_chance(encoder, emoji, features, templates, floor):
    texts = _text_features(encoder, emoji.target_names, TEMPLATES[templates])
    predicted = emoji.target_names[np.argmax(features @ texts.T, 1)]
    assert np.mean(predicted == emoji.target) > floor  # chance is 0.025


@pytest.mark.parametrize(("shots", "floor"), [(1, 0.55), (2, 0.68), (4, 0.72)])
def test_means_of_some_styles_name_the_others(emoji, features, shots, floor):
    sets, scores = np.unique(emoji.sets), []
    for start in range(len(sets)):
        support = np.isin(emoji.sets, np.roll(sets, start)[:shots])
        means = np.stack([features[support & (emoji.target == name)].mean(0) for name in emoji.target_names])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        predicted = emoji.target_names[np.argmax(features[~support] @ means.T, 1)]
        scores.append(np.mean(predicted == emoji.target[~support]))
    assert np.mean(scores) > floor


@pytest.fixture(scope="module")
def one_of_each(emoji):
    """An image of each thing, and one of each for a test."""
    styles = emoji.sets
    first, second = (np.flatnonzero(styles == style) for style in np.unique(styles)[:2])
    return first, second


def roots(clf):
    return {one.choice[0] for one in clf.model_.components}


def test_neither_common_words_nor_class_names_shape_its_metric(emoji, features, one_of_each):
    train, _ = one_of_each
    clf = XMAdapterClassifier("tiny").fit(features[train], emoji.target[train])
    assert roots(clf) == {IDENTITY_ROOT}
    assert clf.text_cache_ is not None


def test_words_that_are_passed_shape_it(emoji, features, one_of_each):
    train, _ = one_of_each
    clf = XMAdapterClassifier("tiny", vocabulary=["dog", "car", "tree", "face"])
    assert roots(clf.fit(features[train], emoji.target[train])) == {VOCABULARY_ROOT}


def test_the_plain_metric_is_better_at_one_shot(emoji, features, one_of_each):
    train, test = one_of_each
    score = {}
    for vocabulary in ("common", list(common_words())):
        clf = XMAdapterClassifier("tiny", vocabulary=vocabulary).fit(features[train], emoji.target[train])
        score[len(vocabulary)] = clf.score(features[test], emoji.target[test])
    assert score[len("common")] >= score[len(common_words())]
