"""A suite for pytest-benchmark: in each group the time of every way, as a multiple of the fastest.

    pip install ".[test,bench]"
    pytest benchmarks/bench_speed.py --benchmark-columns=min,median --benchmark-sort=min

The scripts beside it print the ratios that are to hold, at full size, and that of an epoch, which is a difference of
two fits. Here the same pairs run smaller, and `--benchmark-autosave` and `--benchmark-compare` tell whether a change
made something slower.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

# pytest finds the folder tests/encoder first, and puts the folder of a file on no path
sys.path.insert(0, str(Path(__file__).parent))
from encoder import make_images, make_model
from scale import GROWTH, bare_products, problem
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skxma import CLIPEncoder, EmbeddingStore, XMAdapterClassifier, XMAdapterSearchCV
from skxma.baselines import CrossModalLinearProbe, LogisticRegressionProbe, LPPlusPlusClassifier, TipAdapterFClassifier
from skxma.datasets import load_emoji
from skxma.encoder import _clip_encoder as encoder

ROUNDS, N_IMAGES, N_QUERIES = 3, 32, 10_000
GRID = {"alpha": [0.3, 1, 3, 10], "beta": [1.0, 3.0, 5.5, 10.0], "fusion_ratio": [0.0, 0.5, 1.0]}
METHODS = {
    "xmadapter": XMAdapterClassifier("precomputed"),
    "xmadapter, paper": XMAdapterClassifier("precomputed", evidence="paper"),
    "tip-adapter-f": TipAdapterFClassifier("precomputed"),
    "linear probe, cross-modal": CrossModalLinearProbe("precomputed"),
    "linear probe, lp++": LPPlusPlusClassifier("precomputed"),
    "logistic regression": LogisticRegressionProbe("precomputed"),
}
# what a fit takes does not depend on how many queries follow
GROWING_FITS = [(name, case[:3]) for name, cases in GROWTH.items() if name != "queries" for case in cases]


@pytest.fixture
def clock(benchmark):
    """Time a call in a group of the table."""

    def run(group, work, *arguments):
        benchmark.group = group
        return benchmark.pedantic(work, arguments, rounds=ROUNDS, warmup_rounds=1)

    return run


@pytest.mark.parametrize("shots", [4, 16])
@pytest.mark.parametrize("method", METHODS)
def test_fit(clock, method, shots):
    X, y, text, _ = problem(100, shots)
    clf = clone(METHODS[method]).set_params(text_features=text)
    clock(f"fit, 100 classes x {shots} shots", clf.fit, X, y)


@pytest.mark.parametrize(("n_classes", "shots"), [(100, 4), (100, 16), (1000, 4)])
@pytest.mark.parametrize("way", ["xmadapter", "the two bare products"])
def test_predict(clock, way, n_classes, shots):
    X, y, text, queries = problem(n_classes, shots, n_queries=N_QUERIES)
    group = f"{N_QUERIES} predictions, {n_classes} classes x {shots} shots"
    if way == "xmadapter":
        clock(group, XMAdapterClassifier("precomputed", text_features=text).fit(X, y).predict, queries)
    else:
        values = torch.nn.functional.one_hot(torch.as_tensor(y)).float()
        clock(group, bare_products, torch.as_tensor(queries), torch.as_tensor(X), values)


def numpy_form(query, keys, labels, text, beta=5.5, scale=100.0):
    """Probabilities of one query by both caches in their plainest form."""
    evidence = np.bincount(labels, np.exp(beta * (keys @ query - 1)), len(text))
    logits = scale * (text @ query) + np.log(evidence)
    p = np.exp(logits - logits.max())
    return p / p.sum()


@pytest.mark.parametrize(("n_classes", "shots"), [(10, 4), (1000, 4)])
@pytest.mark.parametrize("way", ["xmadapter", "numpy"])
def test_one_query(benchmark, way, n_classes, shots):
    X, y, text, queries = problem(n_classes, shots, n_queries=1)
    benchmark.group = f"one prediction, {n_classes} classes x {shots} shots"
    if way == "xmadapter":
        benchmark(XMAdapterClassifier("precomputed", text_features=text).fit(X, y).predict_proba, queries)
    else:
        keys, query, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, queries, text))
        benchmark(numpy_form, query[0], keys, y, texts)


# open_clip is imported as skxma does, which also works where the operators of torchvision are those of another torch
IMPORTS = "from skxma.encoder._open_clip import _open_clip; _open_clip()"
STARTS = {
    "python": ["-c", "pass"],
    "wrong usage": ["-m", "skxma", "predict", "--nope"],
    "no such model": ["-m", "skxma", "predict", "none.skxma", "none.png"],
    "import torch": ["-c", "import torch"],
    "import torch and open_clip": ["-c", IMPORTS],
    "predict one image": ["-m", "skxma", "predict", "m.skxma", "0.png"],
}


@pytest.fixture(scope="module")
def start_folder(tmp_path_factory):
    """A model of the bundled encoder, and an image."""
    folder = tmp_path_factory.mktemp("start")
    emoji = load_emoji(as_paths=True, sets=["noto", "twemoji"])
    XMAdapterClassifier("tiny").fit(emoji.images[:8], emoji.target[:8]).save(folder / "m.skxma")
    (folder / "0.png").write_bytes(emoji.images[0].read_bytes())
    return folder


@pytest.mark.parametrize("way", STARTS)
def test_start(clock, start_folder, way):
    def start():
        subprocess.run([sys.executable, *STARTS[way]], cwd=start_folder, capture_output=True, check=False)

    clock("start of a process", start)


@pytest.mark.parametrize(("grows", "case"), GROWING_FITS, ids=lambda part: str(part))
def test_growth(clock, grows, case):
    X, y, text, _ = problem(*case)
    clock(f"fit as {grows} double", XMAdapterClassifier("precomputed", text_features=text).fit, X, y)


@pytest.mark.parametrize("search", [XMAdapterSearchCV, GridSearchCV])
def test_search(clock, search):
    X, y, text, _ = problem(40, 8)
    clf = XMAdapterClassifier("precomputed", text_features=text, evidence="paper", n_epochs=0)
    clock("search over 4 x 4 x 3 values in 5 folds", search(clf, GRID, cv=5).fit, X, y)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The name of a ViT-B-32 with random weights, and JPEG files of 500 x 375."""
    folder = tmp_path_factory.mktemp("encoder")
    return make_model(folder / "model"), make_images(folder / "images", N_IMAGES)


@pytest.mark.parametrize("way", ["bare model on ready tensors", "from paths", "from the store"])
def test_encode(clock, images, tmp_path, way):
    name, paths = images
    clip = CLIPEncoder(name, memory=EmbeddingStore(tmp_path / "store") if way == "from the store" else False)
    loaded = clip._load()
    batch = torch.randn(N_IMAGES, 3, 224, 224, device=loaded.device, dtype=loaded.dtype)

    def encode():
        if way.startswith("bare"):
            with torch.inference_mode():
                return loaded.model.encode_image(batch).float().cpu().numpy()
        encoder._known_keys.clear()
        return clip.encode_image(paths)

    assert np.isfinite(clock(f"encode {N_IMAGES} images", encode)).all()
