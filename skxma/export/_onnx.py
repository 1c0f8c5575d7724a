"""Fitted classifiers as files of ONNX, each compared with the classifier before it is written."""

from __future__ import annotations

import io
import json
import math
import os
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.rejection import RejectionRule
from skxma._runtime.atomic import atomic_write, check_writable
from skxma._runtime.optional import require
from skxma._version import __version__
from skxma.caches import Floats
from skxma.embeddings import unit_rows
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.encoder._image_tower import ImageTower
from skxma.encoder._loaded_model import LoadedModel
from skxma.errors import ExportError
from skxma.export._half import EXPORT, store_in_half
from skxma.export._modules import (
    UNKNOWN,
    ClassifierHead,
    ImageClassifier,
    check_exportable,
    encoder_of_fit,
    has_open_set_scores,
    reject_threshold,
)
from skxma.images._reading import load_image
from skxma.images._validation import check_images

OLDEST_OPSET = 18
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2
TIE_SHARE = 0.1
"""Probabilities closer than this share of the tolerance are a tie, which rounding may settle in another way."""

COMPARED_BATCH = 64
N_GENERATED = 16
N_COMPARED = 256
LARGEST_FILE = 2**31 - 1


@dataclass(frozen=True)
class Reference:
    """Inputs of an exported graph, and what the classifier says of them.

    Attributes
    ----------
    inputs : ndarray of shape (n, ...)
    probabilities : ndarray of shape (n, C)
    open_set_scores : ndarray of shape (n,) or None
    answers : ndarray of shape (n,)
        Positions of the classes, -1 for an image that is refused.
    """

    inputs: NDArray[Any]
    probabilities: NDArray[np.float64]
    open_set_scores: NDArray[np.float64] | None
    answers: NDArray[np.intp]

    @classmethod
    def of(cls, clf: BaseFewShotClassifier, inputs: NDArray[Any], embeddings: Floats) -> Reference:
        """Answers of a classifier for embeddings (n, D), which stand for `inputs`."""
        probabilities = clf.predict_proba(embeddings)
        answers = probabilities.argmax(1)
        scores = clf.open_set_score(embeddings) if has_open_set_scores(clf) else None
        if scores is not None:
            answers = np.where(scores > reject_threshold(clf), UNKNOWN, answers)
        return cls(inputs, probabilities, scores, answers)


SET_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Confidence levels whose thresholds a file has, as far as the samples support them."""


def to_onnx(
    clf: BaseFewShotClassifier,
    path: str | os.PathLike[str],
    part: str = "model",
    *,
    opset: int = 20,
    half: bool = False,
    images: Any = None,
    tolerance: float | None = None,
) -> float:
    """Write a fitted classifier to a file of ONNX that answers as it does; needs ``skxma[onnx]``.

    Before the file is written, onnxruntime runs the graph on the support images and its answers are compared with the
    classifier's. Embeddings of the support images, which every classifier holds, are compared always; images for
    ``part="model"`` too, as far as they are given or the classifier knows where they are.

    The encoder computes in single precision, as with ``precision="fp32"``. The inputs are those of `to_module`, called
    "embeddings" or "pixels", the outputs "probabilities", "open_set_scores" and "answers"; the number of images is
    open. The metadata of the file, each a text of JSON, tell a program what it needs to know: "classes", "class_names",
    "encoder_fingerprint", "thresholds", "unknown_label", "part", "skxma_version" and, for "model", "encoder",
    "image_size", "mean", "std", "resize_mode", "interpolation", "fill_color" and "rescale_16bit". The thresholds are
    "open_set_score", above which an image is refused, and "set_probability", the least probability of a class in a
    prediction set by its confidence level; the likeliest class is in every set.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        A fitted `XMAdapterClassifier` or a rival of `skxma.baselines`.
    path : str or path-like
        By custom it ends in ".onnx". What was there is replaced; the file is there whole or not at all.
    part : {"model", "head"}, default="model"
        "head" takes embeddings, "model" pixels.
    opset : int, default=20
        Version of ONNX's operators, at least 18.
    half : bool, default=False
        Whether to store the numbers in half precision, so that the file has half the size. It is computed in single
        precision all the same.
    images : sequence of images, optional
        Images for the comparison of ``part="model"``; by default those of the fit whose paths are known. Where there
        are none, the encoder is compared on generated ones.
    tolerance : float, optional
        Largest difference of a probability with which the file is written; by default 1e-4, and 2e-2 with `half`. The
        answers must be the same, but where two probabilities are closer than a tenth of it.

    Returns
    -------
    difference : float
        Largest difference of a probability that was found.

    Raises
    ------
    skxma.errors.ExportError
        The graph differs by more than the tolerance or gives another answer, or the classifier cannot be put into
        one; no file is changed.
    skxma.errors.MissingDependencyError
        onnx, onnxscript or onnxruntime is missing.
    ValueError, TypeError
        As of `to_module`; or an `opset` that cannot be written.
    OSError
        A folder that cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from skxma import XMAdapterClassifier
    >>> from skxma.datasets import load_emoji
    >>> from skxma.export import to_onnx
    >>> emoji = load_emoji()
    >>> shots = emoji.sets == "noto"
    >>> clf = XMAdapterClassifier("tiny").fit(emoji.images[shots], emoji.target[shots])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_onnx(clf, f"{folder}/emoji.onnx", "head") < 1e-4
    True
    """
    check_exportable(clf, part)
    _check_options(opset, tolerance)
    onnx, *_ = (require(module, what=EXPORT, extra="onnx") for module in ("onnx", "onnxscript", "onnxruntime"))
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise ValueError(f"opset={opset} is newer than the installed onnx, which knows versions up to {newest}.")
    check_writable(path)
    largest = (HALF_TOLERANCE if half else TOLERANCE) if tolerance is None else tolerance
    head, name = ClassifierHead(clf), type(clf).__name__
    embeddings = _embeddings_to_compare(clf)
    graph = _graph(head, torch.from_numpy(embeddings[:2]), "embeddings", name, opset, half)
    wanted = Reference.of(clf, embeddings, embeddings)
    difference = _compare(graph, wanted, largest, "the support embeddings and means of them")
    about = _about_classifier(clf)
    if part == "model":
        encoder = encoder_of_fit(clf)
        tower = ImageTower(encoder)
        _check_size(tower, half)
        pixels, embeddings, what = _pixels_to_compare(clf, encoder, tower.loaded, images)
        graph = _graph(
            ImageClassifier(tower, head), torch.from_numpy(pixels[:1].repeat(2, 0)), "pixels", name, opset, half
        )
        difference = max(difference, _compare(graph, Reference.of(clf, pixels, embeddings), largest, what))
        about.update(_about_pixels(encoder, tower.loaded))
    for key, value in {**about, "part": part}.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value, ensure_ascii=False, default=str)
    with atomic_write(path) as stream:
        stream.write(graph.SerializeToString())
    return difference


def _check_options(opset: Any, tolerance: float | None) -> None:
    if isinstance(opset, bool) or not isinstance(opset, Integral) or opset < OLDEST_OPSET:
        raise ValueError(
            f"opset={opset!r} must be an integer of at least {OLDEST_OPSET}, which torch's exporter needs."
        )
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance!r} must be at least 0.")


def _check_size(tower: ImageTower, half: bool) -> None:
    """Refuse an encoder that does not fit into a file of ONNX before it is traced."""
    size = sum(weights.numel() for weights in tower.clip.visual.parameters()) * (2 if half else 4)
    if size > LARGEST_FILE:
        remedy = "part='head'" if half else "half=True or part='head'"
        raise ExportError(f"The encoder has {size / 1e9:.1f} GB of weights, a file of ONNX holds 2 GB; pass {remedy}.")


def _graph(module: nn.Module, example: Tensor, inputs: str, name: str, opset: int, half: bool) -> Any:
    """Translate a module into a model of ONNX whose number of images is open; `example` has two."""
    onnx = require("onnx", what=EXPORT, extra="onnx")

    outputs = ["probabilities", "open_set_scores", "answers"]
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # of torch about its own translation
            warnings.simplefilter("ignore")
            if len(module(example)) < len(outputs):
                outputs.remove("open_set_scores")
            dim = torch.export.Dim("n", min=1)
            traced = torch.export.export(module, (example,), dynamic_shapes=({0: dim},), strict=False)
            program: Any = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=opset,
                input_names=[inputs],
                output_names=outputs,
                verbose=False,
                # its rules take the constant 1e-8 in "log(evidence + 1e-8)" for 0 (onnxscript 0.7)
                optimize=False,
            )
    except Exception as error:  # torch raises errors of many kinds
        raise ExportError(
            f"torch cannot put a {name} into a graph ({type(error).__name__}: {error!s:.300})."
        ) from error
    stream = io.BytesIO()
    program.save(stream)
    graph = onnx.load_from_string(stream.getvalue())
    written = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(
            f"The installed onnx and onnxscript write version {written} of the operators in the place of "
            f"opset={opset}; pass opset={written}, or leave it out."
        )
    _forget_the_making(graph)
    _name_types_of_casts(graph)
    return store_in_half(graph) if half else graph


def _forget_the_making(graph: Any) -> None:
    """Remove torch's notes on each node: the lines of code, with paths of this machine, that it came from."""
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _name_types_of_casts(graph: Any) -> None:
    """Turn casts to the type of another value into casts to a named type: onnxruntime warns of each of the former."""
    onnx = require("onnx", what=EXPORT, extra="onnx")

    types = {array.name: array.data_type for array in graph.graph.initializer}
    for value in (*graph.graph.input, *graph.graph.value_info, *graph.graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for node in graph.graph.node:
        if node.op_type == "CastLike" and types.get(node.input[1]):
            to = onnx.helper.make_attribute("to", types[node.input[1]])
            node.op_type = "Cast"
            del node.input[1], node.attribute[:]
            node.attribute.append(to)


def _compare(graph: Any, wanted: Reference, tolerance: float, what: str) -> float:
    """Run a graph with onnxruntime and refuse it if it differs; returns the largest difference of a probability."""
    onnxruntime = require("onnxruntime", what=EXPORT, extra="onnx")

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # the first alone, so that the number of images is seen to be open
    bounds = [0, 1, *range(1 + COMPARED_BATCH, len(wanted.inputs), COMPARED_BATCH), len(wanted.inputs)]
    names = [output.name for output in session.get_outputs()]
    name = session.get_inputs()[0].name
    parts = [session.run(names, {name: wanted.inputs[a:b]}) for a, b in pairwise(bounds) if a < b]
    found = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    difference = float(np.abs(found["probabilities"] - wanted.probabilities).max())
    # a NaN is within no tolerance
    if not difference <= tolerance:
        raise ExportError(
            f"onnxruntime's probabilities for {what} differ from the classifier's by {difference:.2g}, more than the "
            f"tolerance of {tolerance:.2g}; nothing was written."
        )
    changed = found["answers"] != wanted.answers
    changed &= ~(_tied(wanted.probabilities, found["answers"], TIE_SHARE * tolerance) & (wanted.answers != UNKNOWN))
    if changed.any():
        raise ExportError(
            f"onnxruntime gives another answer than the classifier for {changed.sum()} of {len(changed)} of {what}, "
            f"the first of them number {changed.argmax()}; nothing was written."
        )
    return difference


def _tied(probabilities: NDArray[np.float64], answers: NDArray[np.intp], margin: float) -> NDArray[np.bool_]:
    """Tell where the probability of an answer (n,) is the largest of its row (n, C), or less by at most a margin."""
    own = np.take_along_axis(probabilities, np.maximum(answers, 0)[:, None], axis=1)[:, 0]
    tied: NDArray[np.bool_] = (probabilities.max(1) - own <= margin) & (answers != UNKNOWN)
    return tied


def _embeddings_to_compare(clf: BaseFewShotClassifier) -> Floats:
    """Support embeddings, and the means of neighbors among them, of which models are less sure (N', D)."""
    known = clf.image_cache_.embeddings
    return np.concatenate([known, unit_rows(known + np.roll(known, 1, axis=0))])


def _pixels_to_compare(
    clf: BaseFewShotClassifier, encoder: CLIPEncoder, loaded: LoadedModel, images: Any
) -> tuple[NDArray[np.uint8], Floats, str]:
    """Pixels (n, height, width, 3), their embeddings (n, D), and what they are."""
    items = _images_of_fit(clf) if images is None else check_images(images)
    if not len(items):
        pixels = _generated(loaded.image_size)
        return pixels, np.asarray(loaded.embed_images(torch.from_numpy(pixels).permute(0, 3, 1, 2))), "generated images"
    items = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, N_COMPARED).astype(int))]
    embeddings = np.asarray(encoder.encode_image(items))
    read = partial(load_image, rescale_16bit=encoder.rescale_16bit)
    pixels = np.stack([loaded.geometry(read(item)) for item in items])
    return pixels, embeddings, "the support images" if images is None else "the given images"


def _images_of_fit(clf: BaseFewShotClassifier) -> list[str]:
    """Paths of the images of the fit that still lead to a file."""
    names = getattr(clf, "sample_names_", None)
    return [] if names is None else [name for name in names if name is not None and Path(name).is_file()]


def _generated(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Colored waves with noise (n, height, width, 3): images with structure at all scales, the same every time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    frequency = rng.uniform(-8, 8, (N_GENERATED, 2, 1, 1, 3))
    phase = rng.uniform(0, 2 * np.pi, (N_GENERATED, 1, 1, 3))
    waves = np.sin(2 * np.pi * (frequency[:, 0] * y[..., None] + frequency[:, 1] * x[..., None]) + phase)
    noisy = 128 + 90 * waves + rng.normal(0, 20, waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _about_classifier(clf: BaseFewShotClassifier) -> dict[str, Any]:
    """Metadata of every file."""
    threshold = reject_threshold(clf)
    unknown = RejectionRule.of(None, getattr(clf, "unknown_label", None), clf.classes_).label
    return {
        "skxma_version": __version__,
        "classes": clf.classes_.tolist(),
        "class_names": clf.class_names_,
        "encoder_fingerprint": clf.encoder_fingerprint_,
        "thresholds": {
            "open_set_score": threshold if math.isfinite(threshold) else None,
            "set_probability": _set_thresholds(clf),
        },
        "unknown_label": unknown,
    }


def _set_thresholds(clf: BaseFewShotClassifier) -> dict[str, float]:
    """Least probability of a class in the prediction sets, by their confidence level.

    Levels that the samples do not support are left out, and all where sets are not those of the exported model: where
    they come from models without a fold, or a pool has changed the probabilities.
    """
    calibration = getattr(clf, "calibration_", None)
    if calibration is None or hasattr(clf, "fold_fits_") or clf.model_.without_pool() is not clf.model_:
        return {}
    limits = zip(SET_LEVELS, calibration.largest_scores(SET_LEVELS), strict=True)
    return {f"{level:g}": math.exp(-limit) for level, limit in limits if math.isfinite(limit)}


def _about_pixels(encoder: CLIPEncoder, loaded: LoadedModel) -> dict[str, Any]:
    """Metadata of a file that takes pixels: how an image becomes such."""
    preprocessing = loaded.preprocessing
    return {
        "encoder": encoder.name,
        "image_size": loaded.image_size,
        "mean": loaded.mean.flatten().tolist(),
        "std": loaded.std.flatten().tolist(),
        "resize_mode": preprocessing.get("resize_mode") or "shortest",
        "interpolation": preprocessing.get("interpolation") or "bicubic",
        "fill_color": preprocessing.get("fill_color", 0),
        "rescale_16bit": encoder.rescale_16bit,
    }
