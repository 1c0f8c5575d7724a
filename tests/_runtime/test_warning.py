"""Warnings point at the line of whoever called, through every wrapper in between."""

import ast
import inspect
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from problems import make_problem
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from small_clip import make_pixels

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._runtime.warning import AdvisingWarning, text_outside_python, warn
from skxma.store import EmbeddingStore, MemoryStore, _sqlite

PIXELS = [make_pixels(seed) for seed in range(8)]
NUMBERS = np.repeat([0, 1], 4)
LABELS = list("aaaabbbbb")
LONG = "a word " * 60


def here() -> int:
    """The line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def places(caught) -> list[tuple[str, int]]:
    return [(Path(one.filename).name, one.lineno) for one in caught]


def tiny(**options) -> CLIPEncoder:
    return CLIPEncoder("tiny", memory=MemoryStore(), precision="fp32", device="cpu", n_threads=1, **options)


def no_names():
    return XMAdapterClassifier(tiny(), vocabulary=None)


CALLS = {
    "fit": lambda: (no_names().fit(PIXELS, NUMBERS), here()),
    "partial_fit": lambda: (no_names().partial_fit(PIXELS, NUMBERS), here()),
    "pipeline": lambda: (make_pipeline("passthrough", no_names()).fit(PIXELS, NUMBERS), here()),
    "search": lambda: (GridSearchCV(no_names(), {"alpha": ["auto"]}, cv=2).fit(PIXELS, NUMBERS), here()),
    "cross-validation": lambda: (cross_val_predict(no_names(), PIXELS, NUMBERS, cv=2), here()),
    "jobs": lambda: (Parallel(1)([delayed(no_names().fit)(PIXELS, NUMBERS)]), here()),
    "encode_text": lambda: (tiny().encode_text([LONG]), here()),
    "zero_shot_weights": lambda: (tiny().zero_shot_weights([LONG]), here()),
    "names": lambda: (XMAdapterClassifier(tiny(), vocabulary=None).fit(PIXELS, ["a"] * 4 + [LONG] * 4), here()),
    "encode_image": lambda: (tiny(on_error="skip").encode_image([*PIXELS, "missing.png"]), here()),
    "transform": lambda: (tiny(on_error="skip").fit_transform([*PIXELS, "missing.png"]), here()),
    "skipping fit": lambda: (XMAdapterClassifier(tiny(on_error="skip")).fit([*PIXELS, "no.png"], LABELS), here()),
}


@pytest.mark.parametrize("name", CALLS)
def test_warnings_point_at_the_line_that_called(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, line = CALLS[name]()
    assert set(places(caught)) == {(Path(__file__).name, line)}


def test_a_loaded_model_of_a_better_machine_warns_at_the_line_that_predicts():
    problem = make_problem(n_classes=3, shots=2)
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y).set_params(device="cuda:77")
    with pytest.warns(UserWarning, match="goes on with the CPU") as caught:
        clf.predict(problem.X_test)
    assert set(places(caught)) == {(Path(__file__).name, here() - 1)}


def test_a_damaged_store_warns_at_the_line_that_encodes(tmp_path, monkeypatch):
    monkeypatch.setattr(_sqlite, "_warned", set())
    store = EmbeddingStore(tmp_path / "store.sqlite")
    store.file.write_bytes(b"this is no database" * 1000)
    with pytest.warns(RuntimeWarning, match="continuing without it") as caught:
        CLIPEncoder("tiny", memory=store).encode_image(PIXELS)
    assert places(caught) == [(Path(__file__).name, here() - 1)]


def test_where_nobody_called_the_outermost_frame_is_named():
    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool.submit(warn, "alone").result()
    assert places(caught)[0][0] == "threading.py"


def test_a_line_is_warned_of_once_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("again and again")
    assert len(caught) == 1


def test_nothing_in_the_package_warns_in_another_way():
    found = []
    for path in Path(skxma.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            direct = isinstance(node, ast.Attribute) and node.attr == "warn"
            imported = isinstance(node, ast.ImportFrom) and node.module == "warnings"
            if (direct and getattr(node.value, "id", "") == "warnings") or imported:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_advice_for_python_is_left_out_elsewhere():
    with pytest.warns(AdvisingWarning, match=r"^Two are alike\. Pass groups=\.$") as caught:
        warn("Two are alike.", advice="Pass groups=.")
    assert text_outside_python(caught[0].message) == "Two are alike."
    assert str(pickle.loads(pickle.dumps(caught[0].message))) == "Two are alike. Pass groups=."
    assert text_outside_python(UserWarning("Plain.")) == text_outside_python("Plain.") == "Plain."
