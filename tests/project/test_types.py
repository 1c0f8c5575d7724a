"""What a type checker makes of a user's script: the public interface has types, and wrong calls are found."""

import re
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

SCRIPT = """
    import numpy as np

    import skxma
    from skxma import CLIPEncoder, EmbeddingStore, XMAdapterClassifier, XMAdapterSearchCV
    from skxma.baselines import TipAdapterClassifier
    from skxma.datasets import load_emoji
    from skxma.errors import ImageError
    from skxma.inspection import RetrievalDisplay, labels_in_question
    from skxma.model_selection import FewShotSplit
    from skxma.prompts import make_prompts

    emoji = load_emoji()
    clf = XMAdapterClassifier("tiny", false_rejection_rate=0.1)
    reveal_type(clf.fit(emoji.images, emoji.target))  # XMAdapterClassifier
    reveal_type(clf.predict_proba(emoji.images))  # float64
    reveal_type(clf.predict(emoji.images))  # numpy.ndarray
    reveal_type(clf.partial_fit(emoji.images, emoji.target).drop(["fox"]))  # XMAdapterClassifier
    reveal_type(clf.kneighbors(emoji.images)[2])  # numpy.ndarray
    reveal_type(clf.open_set_score(emoji.images))  # float64
    reveal_type(labels_in_question(clf)[0].suggested)  # Any
    reveal_type(labels_in_question(clf)[0].probability)  # float
    reveal_type(CLIPEncoder("tiny").encode_image(emoji.images))  # skxma.embeddings.Embeddings
    reveal_type(XMAdapterSearchCV(clf, {"alpha": [1.0]}).fit(emoji.images, emoji.target))  # XMAdapterSearchCV
    reveal_type(TipAdapterClassifier("tiny").fit(emoji.images, emoji.target))  # TipAdapterClassifier
    reveal_type(FewShotSplit(1))  # FewShotSplit
    reveal_type(EmbeddingStore("here"))  # EmbeddingStore
    reveal_type(RetrievalDisplay.from_estimator(clf, emoji.images[:1]))  # RetrievalDisplay
    reveal_type(make_prompts("heron", "photo"))  # list[str]
    reveal_type(clf.set_callbacks())  # XMAdapterClassifier
    reveal_type(skxma.__version__)  # str
    try:
        clf.predict(["a.png"])
    except ImageError as error:
        reveal_type(error.index)  # int | None
    XMAdapterClassifier(encoderr="tiny")  # error: [call-arg]
    clf.predict(emoji.images, None, 3)  # error: [call-arg]
    XMAdapterClassifier(n_epochs="twenty")  # error: [arg-type]
    skxma.no_such_name  # error: [attr-defined]
"""


@pytest.mark.slow
def test_a_users_script_is_typed(tmp_path):
    lines = textwrap.dedent(SCRIPT).strip().splitlines()
    (tmp_path / "script.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", "--no-error-summary", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    said = {}
    for number, text in re.findall(r"^script\.py:(\d+): (.*)$", done.stdout, re.MULTILINE):
        said.setdefault(int(number), []).append(text)
    for number, line in enumerate(lines, start=1):
        code, _, wanted = line.partition("  # ")
        found = said.pop(number, [])
        if not wanted:
            assert found == [], code
        elif wanted.startswith("error: "):
            (error,) = [text for text in found if text.startswith("error: ")]
            assert error.endswith(wanted.removeprefix("error: ")), (code, found)
        else:
            assert len(found) == 1, (code, found)
            assert wanted in found[0], (code, found)
            assert wanted == "Any" or '"Any"' not in found[0], (code, found)
    assert said == {}, done.stdout + done.stderr
