"""Names of format 1, which were those of classes and attributes, as names of today's format."""

from __future__ import annotations

from typing import Any

_RECORDS = {
    "CalibratedCache": "calibrated_evidence/1",
    "ClassStatistics": "class_statistics/1",
    "ImageCache": "image_cache/1",
    "KeyCells": "key_clusters/1",
    "Member": "metric_component/1",
    "Pool": "unlabeled_pool/1",
    "PooledModel": "pooled_evidence/1",
    "Projection": "projection/1",
    "StoredFrame": "centered_basis/1",
    "TextCache": "text_cache/1",
    "TrainedCache": "paper_evidence/1",
}
# Those that are not the same in both formats.
_FIELDS = {
    "CalibratedCache": {"frames": "bases", "members": "components", "cells": "key_clusters"},
    "ClassStatistics": {"centre": "center"},  # codespell:ignore centre
    "Member": {"frame": "basis", "choice": "metric", "share": "averaging_weight"},
    "TextCache": {"img2txt": "image_to_text", "centres": "modality_means"},  # codespell:ignore centres
    "TrainedCache": {"text": "text_features", "cells": "key_clusters"},
}
_ESTIMATORS = {
    "APEClassifier": "ape/1",
    "APETClassifier": "ape-t/1",
    "CLAPClassifier": "clap/1",
    "CLIPAdapterClassifier": "clip-adapter/1",
    "CrossModalLinearProbe": "cross-modal/1",
    "GDAClassifier": "gda/1",
    "LPPlusPlusClassifier": "lp++/1",
    "LabelSpreadingProbe": "label-spreading/1",
    "LogisticRegressionProbe": "logistic-regression/1",
    "MultiModalAdapterClassifier": "multimodal-adapter/1",
    "ProKeRClassifier": "proker/1",
    "SSTextUClassifier": "ss-text-u/1",
    "SelfTrainingProbe": "self-training/1",
    "TaskResClassifier": "task-res/1",
    "TipAdapterClassifier": "tip-adapter/1",
    "TipAdapterFClassifier": "tip-adapter-f/1",
    "TransCLIPClassifier": "trans-clip/1",
    "XMAdapterClassifier": "xmadapter/1",
    "ZeroShotClassifier": "zero-shot/1",
}


def translate(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a file of format 1 with the names of today's format; unknown names stay as they are.

    Parameters
    ----------
    state : dict
        As JSON gives it; its records are not translated, which `translate_record` does.

    Returns
    -------
    state : dict
    """
    translated = {name: value for name, value in state.items() if name != "class"}
    if "class" in state:
        translated["estimator"] = _known(_ESTIMATORS, state["class"])
    if isinstance(state.get("fitted"), dict):
        translated["fitted"] = {name.removesuffix("_"): value for name, value in state["fitted"].items()}
    encoder = state.get("encoder")
    if isinstance(encoder, dict) and "clip_encoder" in encoder:
        translated["encoder"] = {"type": "clip_encoder/1", "parameters": encoder["clip_encoder"]}
    return translated


def translate_record(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object of JSON with the names of today's format where it is a record of format 1.

    Parameters
    ----------
    value : dict
        Any object, as ``object_hook`` of `json.loads` gets it.

    Returns
    -------
    value : dict
    """
    kind, fields = value.get("type"), value.get("fields")
    if value.get("kind") != "record" or not isinstance(kind, str) or not isinstance(fields, dict):
        return value
    renamed = _FIELDS.get(kind, {})
    return value | {
        "type": _known(_RECORDS, kind),
        "fields": {renamed.get(name, name): field for name, field in fields.items()},
    }


def _known(names: dict[str, str], written: Any) -> Any:
    return names.get(written, written) if isinstance(written, str) else written
