"""
Save and load
=============

A fitted model is small, for the encoder stays out of it: what is saved is the caches and a few weights, and the
encoder's name and fingerprint. Three ways to a file: skxma's own, of which nothing can be run; skops, which asks what
may be loaded; and joblib, a pickle.
"""

import tempfile
from pathlib import Path

import joblib
import numpy as np
import skops.io

import skxma
from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji

emoji = load_emoji()
support, test = emoji.sets != "noto", emoji.sets == "noto"
clf = XMAdapterClassifier("tiny").fit(emoji.images[support], emoji.target[support])
answers = clf.predict_proba(emoji.images[test])
folder = Path(tempfile.mkdtemp())

# %%
# skxma's own format is arrays and JSON: loading it runs nothing. A later release reads it.

clf.save(folder / "emoji.skxma")
again = skxma.load(folder / "emoji.skxma")
print(f"skxma: {(folder / 'emoji.skxma').stat().st_size / 1e6:.2f} MB")
print("same answers:", np.array_equal(answers, again.predict_proba(emoji.images[test])))

# %%
# joblib, as scikit-learn's users know it. It writes a pickle: loading one runs what its author wanted, so load only
# files that you trust.

joblib.dump(clf, folder / "emoji.joblib", compress=True)
again = joblib.load(folder / "emoji.joblib")
print(f"joblib: {(folder / 'emoji.joblib').stat().st_size / 1e6:.2f} MB")
print("same answers:", np.array_equal(answers, again.predict_proba(emoji.images[test])))

# %%
# skops writes no pickle. It lists the types in a file that it does not know; loading takes the list of those you
# trust, and refuses all else.

skops.io.dump(clf, folder / "emoji.skops")
types = skops.io.get_untrusted_types(file=folder / "emoji.skops")
print(f"skops: {(folder / 'emoji.skops').stat().st_size / 1e6:.2f} MB; types to trust:")
for name in types:
    print(" ", name)

# %%
# All are skxma's own, which is what to check before trusting them. Then it loads.

assert all(name.startswith("skxma.") for name in types)
again = skops.io.load(folder / "emoji.skops", trusted=types)
print("same answers:", np.array_equal(answers, again.predict_proba(emoji.images[test])))

# %%
# The sizes beside that of the encoder, which is left out. This one is tiny; a ViT-B/32 has 605 MB.

import matplotlib.pyplot as plt

weights = Path(skxma.__file__).parent / "encoder" / "tiny" / "open_clip_model.safetensors"
files = {
    "model, skops": folder / "emoji.skops",
    "model, joblib": folder / "emoji.joblib",
    "model, skxma": folder / "emoji.skxma",
    'weights of "tiny"': weights,
}
sizes = [file.stat().st_size / 1e6 for file in files.values()]
fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
bars = ax.barh(list(files), sizes, color=["#0072B2", "#0072B2", "#0072B2", "#E69F00"], height=0.6)
ax.bar_label(bars, fmt="%.2f MB", padding=4)
ax.set(xlabel="MB", xlim=(0, 1.2 * max(sizes)))
ax.spines[["top", "right"]].set_visible(False)

# %%
# A loaded model encodes with the encoder that it names, and refuses the embeddings of another.

from skxma.embeddings import Embeddings
from skxma.errors import EncoderMismatchError

foreign = Embeddings(again.encode(emoji.images[test]), fingerprint="another encoder")
try:
    again.predict(foreign)
except EncoderMismatchError as error:
    print(error)
