"""Write docs/deploy.md: how exact, how fast and how large exported classifiers are.

python benchmarks/deploy.py FOLDER, of feature files (see `skxma.datasets.load_features`); minutes, on an idle machine.
"""

import argparse
import importlib.metadata
import platform
import re
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from results_page import markdown

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji, load_features
from skxma.export import to_onnx
from skxma.images._reading import load_image

PAGE = Path(__file__).parents[1] / "docs" / "deploy.md"
SHOTS = {"default": 4, "many classes": 2}
MANY_CLASSES = 500
N_TIMED = 64
REPEATS = 15
WIDTH = 120
LEAN = ("onnxruntime", "numpy", "pillow")
HEAD = """# Predict on other machines

Written by `python benchmarks/deploy.py FOLDER`. A fitted classifier becomes a file of [ONNX](https://onnx.ai), for
programs that have onnxruntime and neither torch nor skxma:

```bash
pip install 'skxma[onnx]'
skxma export birds.skxma birds.onnx --images birds/
python examples/deploy/predict.py birds.onnx new/*.jpg
```

In Python it is `skxma.export.to_onnx(clf, "birds.onnx")`. `part="model"`, the default, takes pixels of the encoder's
size; `part="head"` takes embeddings, of whichever encoder computes them. Before the file is written, onnxruntime runs
it on the support set, and a probability that is off by more than 1e-4 or another answer refuses the export. `half=True`
stores the numbers in half precision; it then may be off by 2e-2.

[examples/deploy](https://github.com/skxma/skxma/tree/main/examples/deploy) has a program of one file, a container and a
page that classifies images in the browser. An image becomes pixels there as in skxma, to the digit, with the same
release of Pillow. `skxma.export.to_module` is the way to everything else that torch exports to: a `torch.nn.Module`
with the same inputs and outputs.

The file computes in single precision. Where the processor or GPU knows bf16, skxma itself encodes in it unless told
`precision="fp32"`, and its probabilities for an image between two classes may then differ from the file's.

What cannot be exported: encoders other than `"photo"`, `"tiny"` and models of open_clip (export the head), and
the rivals that predict with scikit-learn or with neighbors in a pool (`SelfTrainingProbe`, `LabelSpreadingProbe`,
`TransCLIPClassifier`).

"""


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of feature files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for case in cases(arguments.folder) for row in measured(*case, Path(folder))]
    PAGE.write_text(HEAD + body(rows), encoding="utf-8")


def cases(folder):
    """Yield a name, a classifier, its test images or embeddings, and the part that is exported."""
    for path in sorted(folder.glob("*.npz")):
        data = load_features(path)
        n_classes = len(np.unique(data.target))
        shots = SHOTS["many classes" if n_classes > MANY_CLASSES else "default"]
        support = first_of_each_class(data.target, shots)
        for evidence in ("calibrated", "paper"):
            clf = XMAdapterClassifier("precomputed", text_features=data.text_features, evidence=evidence)
            clf.fit(data.data[support], data.target[support])
            yield f"{path.stem}, {shots} shots, {evidence}", clf, data.data[~support], "head"
    emoji = load_emoji()
    support = emoji.sets == "noto"
    for evidence in ("calibrated", "paper"):
        clf = XMAdapterClassifier("tiny", precision="fp32", device="cpu", evidence=evidence)
        clf.fit(emoji.images[support], emoji.target[support])
        for part, X in (("head", clf.encode(emoji.images[~support])), ("model", emoji.images[~support])):
            yield f"emoji, 1 shot, {evidence}", clf, X, part


def first_of_each_class(labels, shots):
    """Mask (N,) of the first samples of each class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:shots]] = True
    return chosen


def measured(name, clf, X, part, folder):
    """Yield the rows of the table for one classifier, in single and in half precision."""
    probabilities, answers = clf.predict_proba(X), clf.predict(X)
    inputs = pixels_of(X) if part == "model" else np.asarray(X)
    # with the store, images would not be encoded again
    fresh = skxma_without_store(clf) if part == "model" else clf
    torch_one, torch_many = (best(lambda n=n: fresh.predict_proba(X[:n])) / n for n in (1, N_TIMED))
    for half in (False, True):
        path = folder / "model.onnx"
        to_onnx(clf, path, part, half=half, images=X[:N_TIMED] if part == "model" else None)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
        run = partial(run_session, session)
        found, found_answers = (np.concatenate(parts) for parts in zip(*map(run, in_batches(inputs)), strict=True))
        one, many = (best(partial(run, inputs[:n])) / n for n in (1, N_TIMED))
        yield {
            "name": name,
            "part": part,
            "half": half,
            "n": len(inputs),
            "difference": float(np.abs(found - probabilities).max()),
            "changed": int((clf.classes_[found_answers] != answers).sum()),
            "bytes": path.stat().st_size,
            "times": (one, torch_one, many, torch_many),
        }
        print(name, part, "half" if half else "single", flush=True)


def run_session(session, inputs):
    """Probabilities (n, C) and answers (n,)."""
    return session.run(["probabilities", "answers"], {session.get_inputs()[0].name: inputs})


def pixels_of(images):
    """Pixels (n, height, width, 3) of the bundled encoder's size."""
    geometry = CLIPEncoder("tiny", precision="fp32", device="cpu")._load().geometry
    return np.stack([geometry(load_image(image)) for image in images])


def skxma_without_store(clf):
    """The same classifier, which keeps no embeddings."""
    return skxma.load(saved(clf)).set_params(memory=False)


def saved(clf):
    """Path of a model file."""
    path = Path(tempfile.mkdtemp()) / "model.skxma"
    clf.save(path)
    return path


def in_batches(inputs):
    """Yield the inputs in pieces."""
    return (inputs[start : start + N_TIMED] for start in range(0, len(inputs), N_TIMED))


def best(call):
    """Milliseconds of the fastest of several calls."""
    call()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def body(rows):
    """The measured part of the page."""
    exact, lean = [row for row in rows if not row["half"]], [row for row in rows if row["half"]]
    worst = max(row["difference"] for row in exact)
    machine = f"{platform.machine()}; Python {platform.python_version()}, skxma {skxma.__version__}"
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnx", "onnxruntime"))
    sizes = {name: installed_bytes(names) for name, names in (("lean", LEAN), ("skxma", ("skxma",)))}
    lines = [
        "## How exact",
        "",
        f"Test images that no fit has seen, {sum(row['n'] for row in exact)} in all. In single precision no "
        f"probability differs by more than {worst:.0e} from skxma's, and {total_changed(exact)}; in half precision "
        f"{total_changed(lean)}.",
        "",
        *markdown(
            ["classifier", "input", "images", "largest difference", "answers changed", "half: difference", "changed"],
            [
                [
                    one["name"],
                    "pixels" if one["part"] == "model" else "embeddings",
                    str(one["n"]),
                    f"{one['difference']:.1e}",
                    str(one["changed"]),
                    f"{two['difference']:.1e}",
                    str(two["changed"]),
                ]
                for one, two in zip(exact, lean, strict=True)
            ],
        ),
        "",
        "## How fast, how large",
        "",
        f"Milliseconds an image on one core, the fastest of {REPEATS} calls, for one image and for {N_TIMED} at once; "
        "skxma is `predict_proba` of the classifier itself, of embeddings or of decoded images without a store.",
        "",
        *markdown(
            ["classifier", "input", "one: onnxruntime", "skxma", f"{N_TIMED}: onnxruntime", "skxma", "MB", "half: MB"],
            [
                [
                    one["name"],
                    "pixels" if one["part"] == "model" else "embeddings",
                    *(f"{value:.3f}" for value in one["times"]),
                    f"{one['bytes'] / 1e6:.2f}",
                    f"{two['bytes'] / 1e6:.2f}",
                ]
                for one, two in zip(exact, lean, strict=True)
            ],
        ),
        "",
        f"Installed, onnxruntime, numpy and Pillow with what they need take {sizes['lean'] / 1e6:.0f} MB; skxma with "
        f"torch for the CPU takes {sizes['skxma'] / 1e6:.0f} MB.",
        "",
        f"Machine: {machine}, {packages}.",
        "",
    ]
    return "\n".join(line if line.startswith("|") else textwrap.fill(line, WIDTH) for line in lines)


def total_changed(rows):
    """How many answers changed, in words."""
    n, total = sum(row["changed"] for row in rows), sum(row["n"] for row in rows)
    return "no answer changes" if n == 0 else f"{n} of {total} answers change"


def installed_bytes(names):
    """Bytes on disk of packages and all that they need."""
    seen, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            seen.remove(name)  # needed on other systems
            continue
        waiting += [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
    files = [file for name in seen for file in importlib.metadata.files(name) or []]
    return sum(path.stat().st_size for file in files if (path := Path(file.locate())).is_file())


if __name__ == "__main__":
    main()
