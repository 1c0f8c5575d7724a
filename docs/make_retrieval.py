"""Draw docs/_static/retrieval.png, the figure at the top of the README and of the documentation.

    python docs/make_retrieval.py

Three queries of the bundled emoji, two support images per class, the encoder "tiny"; needs skxma[plot].
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.inspection import RetrievalDisplay

OUT = Path(__file__).parent / "_static" / "retrieval.png"
# two right answers, and a wrong one that the retrieved images explain
QUERIES = ("bicycle", "reminder ribbon", "mosque")


def main() -> None:
    """Fit, retrieve and save the figure."""
    mpl.use("agg")
    emoji = load_emoji(as_paths=True)
    paths = np.array(emoji.images, dtype=object)
    styles = np.unique(emoji.sets)
    support = np.isin(emoji.sets, styles[:2])
    new = [np.flatnonzero((emoji.target == name) & (emoji.sets == styles[2]))[0] for name in QUERIES]
    # fp32, so that the numbers are the same on every machine
    clf = XMAdapterClassifier(CLIPEncoder("tiny", precision="fp32")).fit(paths[support], emoji.target[support])
    display = RetrievalDisplay.from_estimator(clf, paths[new], emoji.target[new], n_neighbors=3)
    display.figure_.savefig(OUT, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
