import multiprocessing
import subprocess
import sys
import warnings

import numpy as np
import pytest
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.store import EmbeddingStore, MemoryStore, _workers

PIXELS = [make_pixels(seed) for seed in range(6)]
LABELS = list("aaabbb")
SEARCH = """
import sys
import numpy as np
from sklearn.model_selection import GridSearchCV
from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji

if __name__ == "__main__":
    emoji = load_emoji()
    kept = np.isin(emoji.target, ["bear", "crown"])
    images = [image for image, one in zip(emoji.images, kept) if one]
    clf = XMAdapterClassifier("tiny", vocabulary=None, memory=sys.argv[1] if len(sys.argv) > 1 else None)
    GridSearchCV(clf, {"alpha": [0.5, 1.0]}, cv=2, n_jobs=2).fit(images, emoji.target[kept])
"""


@pytest.fixture
def worker(monkeypatch):
    """Stand in this process for a worker of joblib."""
    process = type("LokyProcess", (), {"__module__": "joblib.externals.loky.backend.process", "pid": 1})()
    monkeypatch.setattr(multiprocessing, "current_process", lambda: process)
    monkeypatch.setattr(_workers, "_warned", set())


def caught_in(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if "n_jobs" in str(one.message)]


CALLS = {
    "classifier": lambda memory: XMAdapterClassifier("tiny", vocabulary=None, memory=memory).fit(PIXELS, LABELS),
    "its encoder": lambda memory: XMAdapterClassifier(CLIPEncoder("tiny", memory=memory), vocabulary=None).fit(
        PIXELS, LABELS
    ),
    "encoder in a pipeline": lambda memory: CLIPEncoder("tiny", memory=memory).fit_transform(PIXELS),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("memory", [None, MemoryStore()], ids=["default", "store of the process"])
def test_a_worker_that_encodes_for_itself_warns_once(worker, call, memory):
    (message,) = caught_in(lambda: (CALLS[call](memory), CALLS[call](memory)))
    assert "encode_image" in message
    assert "memory=True" in message


@pytest.mark.parametrize("call", CALLS)
def test_what_the_warning_advises_ends_it(worker, call, tmp_path, monkeypatch):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path))
    for memory in (True, tmp_path, EmbeddingStore(tmp_path / "store.sqlite")):
        assert caught_in(lambda memory=memory: CALLS[call](memory)) == []
    X = CLIPEncoder("tiny").encode_image(PIXELS)
    for clf, given in ((XMAdapterClassifier("tiny"), X), (XMAdapterClassifier("precomputed"), np.asarray(X))):
        assert caught_in(lambda clf=clf, given=given: clf.fit(given, LABELS)) == []


def test_no_warning_outside_of_workers_and_for_predictions(monkeypatch, request):
    clf = XMAdapterClassifier("tiny")
    assert caught_in(lambda: clf.fit(PIXELS, LABELS)) == []
    request.getfixturevalue("worker")
    # images may well be shared out among workers
    assert caught_in(lambda: clf.predict(PIXELS)) == []
    assert caught_in(lambda: CLIPEncoder("tiny").encode_image(PIXELS)) == []


@pytest.mark.weekly
def test_a_search_in_two_processes_warns_unless_they_share_a_folder(tmp_path):
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    for arguments, warned in (([], True), ([str(tmp_path / "memory")], False)):
        command = [sys.executable, str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("slower than n_jobs=1" in done.stderr) == warned
