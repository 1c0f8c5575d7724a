import importlib
import re

import pytest
from sklearn.pipeline import make_pipeline

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV, baselines
from skxma._runtime import doc_links as _doc_links
from skxma.datasets import load_emoji

ESTIMATORS = [
    XMAdapterClassifier(),
    CLIPEncoder("tiny"),
    XMAdapterSearchCV(XMAdapterClassifier("tiny"), {"alpha": [1.0]}),
    *(getattr(baselines, name)() for name in baselines.__all__),
]


PLACE = "https://docs.example.org/skxma"


@pytest.fixture(autouse=True)
def no_place(monkeypatch):
    monkeypatch.delenv("SKXMA_DOCS_URL", raising=False)


@pytest.mark.parametrize("place", [None, "", " "])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_without_a_place_of_the_documentation_nothing_is_linked(estimator, place, monkeypatch):
    if place is not None:
        monkeypatch.setenv("SKXMA_DOCS_URL", place)
    assert estimator._get_doc_link() == ""
    shown = estimator._repr_html_()
    assert type(estimator).__name__ in shown
    assert "/generated/" not in shown
    assert not re.search(r'<a[^>]*href="(?!https://scikit-learn\.org/)', shown)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_the_representation_links_the_page_of_the_public_name(estimator, monkeypatch):
    monkeypatch.setenv("SKXMA_DOCS_URL", PLACE)
    link = estimator._get_doc_link()
    name = re.fullmatch(re.escape(PLACE) + r"/generated/([\w.]+)\.html", link)[1]
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is type(estimator)
    assert module in ("skxma", "skxma.baselines")
    assert link in estimator._repr_html_()


@pytest.mark.parametrize("place", ["file:///built/html", "file:///built/{html}"])
def test_the_place_of_the_documentation_may_end_in_a_slash(monkeypatch, place):
    for end in ("", "/"):
        monkeypatch.setenv("SKXMA_DOCS_URL", place + end)
        assert XMAdapterClassifier()._get_doc_link() == f"{place}/generated/skxma.XMAdapterClassifier.html"


def test_classes_of_others_have_no_page_here(monkeypatch):
    monkeypatch.setenv("SKXMA_DOCS_URL", PLACE)

    class Mine(XMAdapterClassifier):
        pass

    assert Mine("tiny")._get_doc_link() == ""


def test_fitted_and_in_a_pipeline(monkeypatch):
    monkeypatch.setenv("SKXMA_DOCS_URL", PLACE)
    emoji = load_emoji(sets=["noto", "twemoji"])
    pipeline = make_pipeline(CLIPEncoder("tiny"), XMAdapterClassifier("tiny"))
    pipeline.fit(emoji.images[:20], emoji.target[:20])
    shown = pipeline._repr_html_()
    for name in ("skxma.CLIPEncoder", "skxma.XMAdapterClassifier"):
        assert f"/generated/{name}.html" in shown
    assert "Fitted" in shown
    assert len(shown) < 500_000


def test_the_names_of_the_package_are_found_without_importing_more():
    assert _doc_links.public_name(XMAdapterClassifier) == "skxma.XMAdapterClassifier"
    assert _doc_links.public_name(skxma.CLIPEncoder) == "skxma.CLIPEncoder"
    assert _doc_links.public_name(skxma.errors.ImageError) == "skxma.errors.ImageError"
