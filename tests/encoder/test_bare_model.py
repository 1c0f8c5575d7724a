import doctest
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.store import MemoryStore

X = [make_pixels(seed) for seed in range(4)]
Y = list("aabb")


@pytest.fixture
def parts(random_model):
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(random_model)
    return model.eval(), preprocess, open_clip.get_tokenizer(random_model)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: XMAdapterClassifier(model).fit(X, Y),
        lambda model: XMAdapterClassifier(model).fit(np.eye(4, 32), Y),
        lambda model: CLIPEncoder(model).fit(),
        lambda model: CLIPEncoder(model).encode_image(X),
    ],
)
def test_a_bare_open_clip_model_is_refused_before_it_runs(parts, use, monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError("the model was asked")

    model = parts[0]
    monkeypatch.setattr(type(model), "encode_image", run)
    with pytest.raises(
        TypeError, match=r"a bare open_clip model .*neither its preprocessing nor its tokenizer"
    ) as caught:
        use(model)
    assert len(str(caught.value)) < 500


def test_that_of_openai_is_refused_too():
    made = types.new_class("CLIP", (torch.nn.Module,))
    made.__module__ = "clip.model"
    made.encode_image = made.encode_text = lambda self, x: x
    with pytest.raises(TypeError, match=r"a bare clip model \(CLIP\)"):
        XMAdapterClassifier(made()).fit(X, Y)


def test_the_remedies_are_taken(parts, random_model):
    """The weights by name, and the wrapper of the guide; both are the same encoder."""
    names: dict = {}
    guide = Path(__file__).parents[2] / "docs" / "guide" / "encoder.md"
    for example in doctest.DocTestParser().get_examples(guide.read_text(encoding="utf-8").replace("```", "")):
        if example.source.startswith(("import", "from", "class OpenClip")):
            exec(example.source, names)
    OpenClip = names["OpenClip"]

    named = CLIPEncoder(random_model, precision="fp32", memory=MemoryStore())
    by_name = XMAdapterClassifier(named, vocabulary=None).fit(X, Y)
    wrapped = XMAdapterClassifier(OpenClip(*parts), vocabulary=None).fit(X, Y)
    np.testing.assert_allclose(wrapped.encode(X), by_name.encode(X), atol=1e-6)


def test_modules_of_ones_own_that_take_images_are_encoders():
    class Mine(torch.nn.Module):
        def encode_image(self, images):
            return np.stack([np.asarray(image, dtype=float).mean((0, 1)) for image in images])

        def encode_text(self, prompts):
            return np.stack([[len(prompt), 1.0, prompt.count("a")] for prompt in prompts])

    assert XMAdapterClassifier(Mine(), vocabulary=None).fit(X, Y).predict(X).shape == (4,)
