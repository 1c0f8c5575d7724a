"""Encoders of timm, transformers and sentence-transformers: real libraries, small random models, no network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from small_clip import make_pixels
from small_models import CONTEXT, write_sentence_transformer, write_timm, write_transformers

from skxma import SentenceTransformerEncoder, TimmEncoder, TransformersEncoder, XMAdapterClassifier, load
from skxma.encoder import CLIPEncoder, clear_models
from skxma.encoder._built_model import BuiltModel
from skxma.encoder._loading import _fingerprint
from skxma.encoder._transformers import TransformersTokenizer
from skxma.errors import EncoderNotFoundError, ImageError, MissingDependencyError, WeightsError
from skxma.store._memory import MemoryStore

DUAL = ("clip", "metaclip_2", "siglip")
ALONE = ("dinov2", "dinov3", "vit", "convnext")
EXACT = {"device": "cpu", "precision": "fp32", "memory": False}
PROMPTS = ["a photo of the cat .", "a small dog"]


@pytest.fixture(scope="module")
def images():
    return [make_pixels(seed, height, width) for seed, (height, width) in enumerate([(48, 64), (80, 50), (32, 32)])]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of a family, written when it is first asked for."""
    root, written = tmp_path_factory.mktemp("models"), {}

    def find(family, library="transformers"):
        if library == "sentence-transformers":
            pytest.importorskip("sentence_transformers")
            write = write_sentence_transformer
        else:
            pytest.importorskip(library)
            write = write_timm if library == "timm" else write_transformers
        if (library, family) not in written:
            written[library, family] = str(write(root / library / family, family))
        return written[library, family]

    return find


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
def test_embeddings_are_those_of_timm(models, images, architecture):
    import timm

    folder = models(architecture, "timm")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    wanted = unit(model(torch.stack([transform(Image.fromarray(image)) for image in images])))
    encoder = TimmEncoder(folder, **EXACT)
    np.testing.assert_allclose(encoder.encode_image(images), wanted, atol=1e-5)
    assert not encoder.has_text


@torch.inference_mode()
@pytest.mark.parametrize("family", [*DUAL, *ALONE])
def test_embeddings_are_those_of_transformers(models, images, family):
    transformers = pytest.importorskip("transformers")
    folder = models(family)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    encoder = TransformersEncoder(folder, **EXACT)
    assert encoder.has_text == (family in DUAL)
    if family in ALONE:
        wanted = network(**pixels).pooler_output.flatten(1)
    else:
        wanted = network.get_image_features(**pixels).pooler_output
        # sigmoid models read the padding, and no mask
        reads_padding = family == "siglip"
        padding = "max_length" if reads_padding else True
        names = ["input_ids"] if reads_padding else ["input_ids", "attention_mask"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(PROMPTS, padding=padding, max_length=CONTEXT, truncation=True, return_tensors="pt")
        texts = network.get_text_features(**{name: tokens[name] for name in names}).pooler_output
        np.testing.assert_allclose(encoder.encode_text(PROMPTS), unit(texts), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_image(images), unit(wanted), atol=2e-3)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_embeddings_are_those_of_sentence_transformers(models, images, family):
    folder = models(family, "sentence-transformers")
    import sentence_transformers

    pipeline = sentence_transformers.SentenceTransformer(folder, device="cpu")
    encoder = SentenceTransformerEncoder(folder, **EXACT)
    wanted = pipeline.encode([Image.fromarray(image) for image in images], normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_image(images), wanted, atol=2e-3)
    np.testing.assert_allclose(
        encoder.encode_text(PROMPTS), pipeline.encode(PROMPTS, normalize_embeddings=True), atol=1e-5
    )


def test_sigmoid_models_bring_their_scale_and_bias(models):
    encoder = TransformersEncoder(models("siglip"), **EXACT)
    assert encoder.logit_scale == pytest.approx(np.exp(4.0))
    assert encoder.logit_bias == pytest.approx(-9.0)
    assert TransformersEncoder(models("clip"), **EXACT).logit_bias == 0


def test_a_fingerprint_tells_networks_of_equal_weights_apart(models):
    assert (
        TransformersEncoder(models("clip"), **EXACT).fingerprint
        != TransformersEncoder(models("metaclip_2"), **EXACT).fingerprint
    )


def test_a_fingerprint_is_the_same_in_any_precision_and_after_a_reload(models):
    encoder = TransformersEncoder(models("siglip"), **EXACT)
    before = encoder.fingerprint
    assert clone(encoder).set_params(precision="bf16").fingerprint == before
    clear_models()
    assert encoder.fingerprint == before


def test_half_precision_is_close(models, images):
    for cls, folder in ((TimmEncoder, models("test_resnet", "timm")), (TransformersEncoder, models("siglip"))):
        exact, half = (cls(folder, **{**EXACT, "precision": precision}) for precision in ("fp32", "bf16"))
        np.testing.assert_allclose(half.encode_image(images), exact.encode_image(images), atol=0.02)


def test_images_are_encoded_once_and_bad_ones_skipped(models, images, monkeypatch, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    encoder = TimmEncoder(models("test_vit", "timm"), device="cpu", memory=MemoryStore(), on_error="skip")
    with pytest.warns(UserWarning, match="Skipped 1 of 4"):
        first = np.asarray(encoder.encode_image([*images, str(tmp_path / "broken.png")]))
    assert [index for index, *_ in encoder.skipped_] == [3]
    assert np.isnan(first[3]).all()
    monkeypatch.setattr(CLIPEncoder, "_forward_images", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(encoder.encode_image(images), first[:3])
    with pytest.raises(ImageError, match=r"broken\.png"):
        clone(encoder).set_params(on_error="raise").encode_image([str(tmp_path / "broken.png")])


def test_it_is_a_transformer_of_scikit_learn(models, images):
    encoder = TimmEncoder(models("test_vit", "timm"), device="cpu").set_output(transform="pandas")
    frame = encoder.fit_transform(images)
    assert list(frame.columns) == list(encoder.get_feature_names_out())
    assert frame.shape == (3, encoder.n_features)


@pytest.mark.parametrize("form", ["object", "name"])
def test_a_classifier_without_texts_learns_from_images_alone(models, form, tmp_path):
    folder = models("test_vit", "timm")
    rng = np.random.default_rng(0)
    colors = np.repeat([[200, 40, 40], [40, 40, 200]], 4, axis=0)
    images = [np.clip(color + rng.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8) for color in colors]
    labels = np.repeat(["red", "blue"], 4)
    encoder = TimmEncoder(folder, device="cpu", precision="fp32") if form == "object" else f"timm:{folder}"
    clf = XMAdapterClassifier(encoder, device="cpu", precision="fp32").fit(images[::2], labels[::2])
    assert clf.predict(images[1::2]).tolist() == labels[1::2].tolist()
    clf.save(tmp_path / "model.skxma")
    loaded = load(tmp_path / "model.skxma")
    assert repr(loaded.encoder) == repr(encoder)
    np.testing.assert_array_equal(loaded.predict_proba(images), clf.predict_proba(images))


def test_a_contrastive_model_serves_a_classifier(models, images):
    names = ["cat", "dog", "flower"]
    clf = XMAdapterClassifier(f"transformers:{models('siglip')}", device="cpu", vocabulary=["temple", "cat"])
    clf.fit(images, names)
    wanted = TransformersEncoder(models("siglip"), device="cpu").zero_shot_weights(names)
    np.testing.assert_allclose(clf.text_features_, wanted, atol=1e-6)
    assert clf.predict(images).tolist() == names


@pytest.mark.bad_input
def test_texts_for_an_encoder_of_images_alone_are_refused(models, images):
    encoder = TimmEncoder(models("test_vit", "timm"), device="cpu")
    with pytest.raises(ValueError, match="encodes images alone"):
        encoder.encode_text(["a cat"])
    with pytest.raises(ValueError, match="vocabulary holds words, but the encoder encodes images alone"):
        XMAdapterClassifier(encoder, vocabulary=["cat"]).fit(images[:2], ["a", "b"])
    with pytest.raises(ValueError, match=r"neither images nor a text.*'c'"):
        XMAdapterClassifier(encoder, class_names={"a": "cat", "b": "dog", "c": "flower"}).fit(images[:2], ["a", "b"])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("timm:resnet5o", EncoderNotFoundError, r"did you mean timm:resnet50\.\w+"),
        ("timm:resnet50.none", EncoderNotFoundError, r"resnet50 has no weights 'none'.*a1_in1k"),
        ("timm:", EncoderNotFoundError, "Write timm:NAME"),
        ("timm:./nowhere", WeightsError, "no such folder"),
        ("timm:resnet18.a1_in1k", WeightsError, r"'timm/resnet18\.a1_in1k'.*name the encoder 'timm:DIR'"),
        ("transformers:siglip", EncoderNotFoundError, r"transformers:organization/name.*folder"),
        ("transformers:/no/where", WeightsError, "no such folder"),
        ("transformers:some/model", WeightsError, r"config\.json of 'some/model'.*'transformers:DIR'.*photo"),
        ("sentence-transformers:some/model", WeightsError, r"modules\.json of 'some/model'.*sentence-transformers:DIR"),
        ("sentence-transformers:clip", EncoderNotFoundError, "sentence-transformers:organization/name"),
    ],
)
def test_wrong_names_say_what_is_right(model, error, words, tmp_path):
    library = model.partition(":")[0]
    if library != "timm":
        pytest.importorskip(library.replace("-", "_"))
    with pytest.raises(error, match=words):
        CLIPEncoder(model, local_files_only=True, cache_dir=tmp_path).encode_image([make_pixels(0)])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("encoder", "module"),
    [(TransformersEncoder, "transformers"), (SentenceTransformerEncoder, "sentence_transformers")],
)
def test_a_missing_library_names_its_extra(encoder, module, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    extra = module.replace("_", "-")
    with pytest.raises(MissingDependencyError, match=rf"pip install 'skxma\[{extra}\]'"):
        encoder(str(tmp_path)).encode_image([make_pixels(0)])


@pytest.mark.bad_input
def test_wrong_files_are_named(models, tmp_path):
    image = [make_pixels(0)]
    for encoder, name in ((TimmEncoder, "config.json"), (TransformersEncoder, "config.json")):
        with pytest.raises(WeightsError, match=f"holds no {name}"):
            encoder(str(tmp_path)).encode_image(image)
    with pytest.raises(WeightsError, match=r"BertModel.*encodes no images"):
        TransformersEncoder(models("bert")).encode_image(image)
    write_timm(tmp_path / "timm")
    (tmp_path / "timm" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        TimmEncoder(str(tmp_path / "timm")).encode_image(image)
    (tmp_path / "timm" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        TimmEncoder(str(tmp_path / "timm")).encode_image(image)


@pytest.mark.bad_input
def test_weights_of_another_network_are_refused(tmp_path):
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    folder = write_transformers(tmp_path, "clip")
    weights = load_file(folder / "model.safetensors")
    lost = min(name for name in weights if "vision" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"lacks 1 weights of CLIPModel.*{lost}"):
        TransformersEncoder(str(folder)).encode_image([make_pixels(0)])


@pytest.mark.bad_input
def test_code_of_a_repository_is_not_run(models, tmp_path):
    pytest.importorskip("sentence_transformers")
    import shutil

    folder = tmp_path / "own"
    shutil.copytree(models("clip", "sentence-transformers"), folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "own.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(WeightsError, match=r"own\.Module\); skxma runs none"):
        SentenceTransformerEncoder(str(folder)).encode_image([make_pixels(0)])


@pytest.mark.bad_input
def test_a_text_model_is_no_encoder(models):
    with pytest.raises(WeightsError, match="encodes no images"):
        SentenceTransformerEncoder(models("bert", "sentence-transformers")).encode_image([make_pixels(0)])


def test_prompts_that_are_cut_are_warned_of(models):
    for encoder in (
        TransformersEncoder(models("clip"), **EXACT),
        SentenceTransformerEncoder(models("clip", "sentence-transformers"), **EXACT),
    ):
        with pytest.warns(UserWarning, match=f"1 prompts are longer than the {CONTEXT} tokens"):
            encoder.encode_text(["a dog " * 20, "a cat"])


def test_the_fingerprint_is_that_of_earlier_releases():
    # stores and model files know their encoder by it
    model = torch.nn.Linear(3, 2)
    model.load_state_dict({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)})
    settings = {"preprocessing": {"mean": (0.5, 0.25), "size": 32}, "image_size": (32, 32), "logit_scale": 100.0}
    built = BuiltModel(model, TransformersTokenizer(None, 77, False), mean=(), std=(), make_geometry=None, **settings)
    assert _fingerprint(built) == "clip-9b2fe163f060803e0fbd1da9013d3f2a"
