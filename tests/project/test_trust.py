"""What skxma does not do unless it is asked: open sockets, run what is in a file, read or write elsewhere."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier

NO_SOCKET = """
    import sys

    def refuse(event, arguments):
        if event.startswith("socket."):
            raise AssertionError(f"the network was asked: {event} {arguments}")

    sys.addaudithook(refuse)
    import joblib, numpy as np
    import skxma
    from skxma import XMAdapterClassifier, XMAdapterSearchCV, cli
    from skxma.baselines import TipAdapterFClassifier
    from skxma.datasets import load_emoji
    from skxma.cli._demo import run_demo

    emoji = load_emoji()
    chosen = np.isin(emoji.target, emoji.target_names[:3])
    X, y = [emoji.images[i] for i in np.flatnonzero(chosen)], emoji.target[chosen]
    folder = sys.argv[1]
    for parameters in ({}, {"evidence": "paper", "n_epochs": 1}, {"memory": folder + "/store"}):
        clf = XMAdapterClassifier("tiny", **parameters).fit(X, y)
        clf.save(folder + "/model.skxma")
        joblib.dump(clf, folder + "/model.joblib")
        for loaded in (skxma.load(folder + "/model.skxma"), joblib.load(folder + "/model.joblib")):
            loaded.predict_proba(X)
            loaded.kneighbors(X)
    clf.partial_fit(X[:2], ["new", "new"]).drop("new")
    TipAdapterFClassifier("tiny", n_epochs=1).fit(X, y).predict(X)
    search = XMAdapterSearchCV(XMAdapterClassifier("tiny", n_epochs=0), {"alpha": [0.5, 1.0]}, cv=2)
    search.fit(X, y).predict(X)
    assert cli.main(["prompts", "heron"]) == 0
    print("done")
"""


@pytest.mark.slow
def test_fit_predict_save_load_and_search_open_no_socket(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(NO_SOCKET), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"


LOADS_ALONE = """
    import sys

    import skxma
    skxma.load(sys.argv[1])  # once, so that everything is imported
    seen = []
    sys.addaudithook(lambda event, arguments: seen.append((event, arguments)))
    clf = skxma.load(sys.argv[2])
    for event, arguments in list(seen):
        if event == "open":
            assert str(arguments[0]) == sys.argv[2] and arguments[1] in ("r", "rb"), arguments
        else:
            print(event, arguments)
"""
MAY_HAPPEN = ("builtins.id", "object.__getattr__")


def test_loading_reads_one_file_and_runs_nothing(tmp_path):
    problem = make_problem(n_classes=3, shots=2, dim=8)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, random_state=np.random.RandomState(0))
    clf.fit(problem.X, problem.y).set_params(encoder="local-dir:../../elsewhere").save(tmp_path / "a.skxma")
    clf.save(tmp_path / "b.skxma")
    command = [sys.executable, "-c", textwrap.dedent(LOADS_ALONE), str(tmp_path / "a.skxma"), str(tmp_path / "b.skxma")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith(MAY_HAPPEN)] == []
