"""Optional dependencies are asked for before work begins, each with the extra that installs it."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from problems import make_problem
from small_clip import MODEL_CONFIG, make_pixels

import skxma
import skxma.active
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._runtime.optional import require
from skxma.baselines import ZeroShotClassifier
from skxma.benchmark import plot_curves
from skxma.cli.main import main
from skxma.datasets import save_features
from skxma.distributed import dask_embeddings
from skxma.encoder import _open_clip as open_clip_module
from skxma.errors import MissingDependencyError
from skxma.inspection import FewShotCurveDisplay, FusionDisplay, RetrievalDisplay

PACKAGE = Path(skxma.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"


@pytest.fixture
def hide(monkeypatch):
    """Make a package and all of its modules fail to import."""

    def hidden(package):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, package, None)

    return hidden


@pytest.fixture
def no_work(monkeypatch):
    """Fail where an image is encoded or a classifier fitted."""

    def work(*args, **kwargs):
        pytest.fail("work was done before the dependency was asked for")

    for cls in (CLIPEncoder, ZeroShotClassifier, XMAdapterClassifier):
        for name in ("encode_image", "encode_text", "fit", "predict_proba", "kneighbors"):
            if hasattr(cls, name):
                monkeypatch.setattr(cls, name, work)


@pytest.fixture
def features(tmp_path):
    problem = make_problem(n_classes=3, shots=4)
    save_features(tmp_path / "small.npz", problem.X, problem.y, text_features=problem.text)
    return tmp_path / "small.npz"


def test_the_message_names_the_caller_and_the_extra(hide):
    assert require("matplotlib", what="x").__name__ == "matplotlib"
    hide("matplotlib")
    with pytest.raises(ImportError, match=r"^--plot needs matplotlib, .*: pip install 'skxma\[plot\]'$"):
        require("matplotlib.pyplot", what="--plot", extra="plot")
    with pytest.raises(MissingDependencyError, match=r"pip install matplotlib$"):
        require("matplotlib", what="It")


def test_benchmark_asks_before_the_first_cell(hide, no_work, features, tmp_path, capsys):
    hide("matplotlib")
    out = tmp_path / "r.csv"
    words = ["benchmark", str(features), "--shots", "1", "--seeds", "1", "--methods", "zero-shot", "--out", str(out)]
    assert main([*words, "--plot", str(tmp_path / "c.png")]) == 1
    error = capsys.readouterr().err
    assert re.match(r"skxma: --plot needs matplotlib.*pip install 'skxma\[plot\]'$", error.strip())
    assert not out.exists()


def test_plot_curves_asks_before_it_reads(hide, tmp_path):
    hide("matplotlib")
    with pytest.raises(MissingDependencyError, match=r"plot_curves needs matplotlib.*skxma\[plot\]"):
        plot_curves(tmp_path / "absent.csv", tmp_path / "c.png")


def test_displays_ask_before_they_fit_or_encode(hide, no_work):
    problem = make_problem(n_classes=3, shots=4)
    fitted = XMAdapterClassifier("precomputed")
    fitted.classes_ = np.arange(3)
    hide("matplotlib")
    wanted = r"needs matplotlib.*skxma\[plot\]"
    with pytest.raises(MissingDependencyError, match=wanted):
        FewShotCurveDisplay.from_estimator(ZeroShotClassifier("precomputed"), problem.X, problem.y, shots=[1])
    with pytest.raises(MissingDependencyError, match=wanted):
        RetrievalDisplay.from_estimator(fitted, problem.X_test)
    with pytest.raises(MissingDependencyError, match=wanted):
        FusionDisplay(names=[], weights=[], losses=[], shares=[], scalars={}, loss_curve=[]).plot()


def test_the_page_asks_before_it_serves(hide, monkeypatch, capsys):
    hide("flask")
    monkeypatch.setattr("skxma.app._tabs.make_tabs", lambda *_: pytest.fail("sessions were made"))
    assert main(["app", "--port", "0"]) == 1
    assert re.search(r"`skxma app` needs flask.*pip install 'skxma\[app\]'", capsys.readouterr().err)


def test_dask_is_asked_for_before_an_encoder_is_loaded(hide, no_work):
    hide("dask")
    with pytest.raises(MissingDependencyError, match=r"dask_embeddings needs dask.*pip install 'skxma\[dask\]'"):
        dask_embeddings(CLIPEncoder("tiny"), ["a.png"])


def test_the_query_strategy_names_its_extra(hide):
    hide("skactiveml")
    wanted = r"SuggestQueryStrategy needs skactiveml.*pip install 'skxma\[active\]'"
    with pytest.raises(MissingDependencyError, match=wanted):
        skxma.active.SuggestQueryStrategy  # noqa: B018 - the look at it imports


@pytest.mark.parametrize("key", ["hf_tokenizer_name", "hf_model_name"])
def test_transformers_are_asked_for_before_weights_are_read(hide, monkeypatch, tmp_path, key):
    config = json.loads(json.dumps(MODEL_CONFIG))
    config["model_cfg"]["text_cfg"][key] = "some/tokenizer"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"never read")
    hide("transformers")
    wanted = r"model='.*' needs transformers.*pip install transformers$"
    with pytest.raises(MissingDependencyError, match=wanted):
        CLIPEncoder(f"local-dir:{tmp_path}").encode_image([make_pixels(0)])

    def fetch(repo, names, **where):
        assert names == ("open_clip_config.json",), "weights were fetched"
        return tmp_path / names[0]

    monkeypatch.setattr(open_clip_module, "fetch_file", fetch)
    monkeypatch.setattr(open_clip_module, "fetch_folder", lambda *_, **__: pytest.fail("weights were fetched"))
    with pytest.raises(MissingDependencyError, match=wanted):
        CLIPEncoder("hf-hub:some/model").encode_image([make_pixels(0)])


def optional_packages():
    """What no plain installation brings, by the extras for users."""
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra in ("plot", "secure", "app", "dask", "onnx", "photo", "transformers", "sentence-transformers"):
        names = (re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra])
        # an extra may ask for a later release of what every installation has
        yield from ((name, extra) for name in names if name != "torch")
    yield from (("skactiveml", "active"), ("pandas", None), ("werkzeug", None))


# modules that are imported once what they need is there
IMPORTED_LATER = {"app/_server.py": {"flask", "werkzeug"}, "active/_query_strategy.py": {"skactiveml"}}


@pytest.mark.skipif(not PROJECT.is_file(), reason="the repository is not beside the tests")
def test_optional_packages_are_imported_through_one_helper():
    packages = dict(optional_packages())
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        found = {name.partition(".")[0] for name in named} & set(packages)
        assert found == IMPORTED_LATER.get("/".join(path.parts[-2:]), set()), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require":
                extra = next((k.value.value for k in node.keywords if k.arg == "extra"), None)
                assert extra in {None, *packages.values()}, path
