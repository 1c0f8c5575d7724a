"""A fitted estimator as the state of a model file, and back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from skxma._labels.by_label import without_index
from skxma._persistence.names_on_disk import ENCODERS, ESTIMATORS, RECORDS
from skxma._persistence.packing import Arrays, Packer, Unpacker, fits
from skxma._persistence.record import EstimatorRecord, find_record, type_on_disk
from skxma._statistics import Calibration
from skxma.caches import Floats, ImageCache
from skxma.encoder._class_weights import has_text, text_shapes_metric
from skxma.encoder._detached import DetachedEncoder
from skxma.errors import ModelFileError

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

# Names on disk of the parameters that may hold a path of this machine, which a file does not.
PLACES = ("memory", "cache_dir")
# Parameters that may be pandas' objects, whose index holds labels.
LABELED = ("class_names", "text_features")
# Fitted attributes that hold those of further fits.
FOLDS = "fold_fits"


def pack_estimator(estimator: BaseFewShotClassifier) -> tuple[dict[str, Any], Arrays]:
    """Return a fitted estimator as JSON and arrays.

    Parameters
    ----------
    estimator : fitted classifier of skxma

    Returns
    -------
    state : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ModelFileError
        A parameter or an attribute that a model file cannot hold, or an estimator that is not skxma's own.
    """
    record = _record_of(type(estimator))
    parameters = estimator.get_params(deep=False)
    # private attributes are scikit-learn's: callbacks, requests for metadata
    public = {name: value for name, value in vars(estimator).items() if not name.startswith("_")}
    fitted = {name: value for name, value in public.items() if name not in parameters}
    on_disk = {attribute: name for name, attribute in record.fitted.items()}
    for attribute in fitted:
        if attribute not in on_disk:
            raise ModelFileError(
                f"{attribute!r} is neither a parameter nor the result of a fit, so a model file cannot hold it; "
                "delete it, or save with joblib."
            )
    for name in LABELED:
        parameters[name] = without_index(parameters[name], estimator.classes_, name)
    packer = Packer(RECORDS)
    state = {
        "estimator": type_on_disk(record),
        "encoder": _pack_encoder(parameters.pop("encoder"), packer),
        "parameters": _pack_parameters(record, parameters, packer),
        "fitted": _pack_fitted(record, fitted, packer),
    }
    return state, packer.arrays


def find_estimator(state: dict[str, Any]) -> EstimatorRecord:
    """Return the record of the estimator that a model file holds.

    Parameters
    ----------
    state : dict

    Raises
    ------
    ModelFileError
        If this release does not know it.
    """
    return find_record(ESTIMATORS, state["estimator"], "the model")


def unpack_estimator(cls: type[Any], record: EstimatorRecord, state: dict[str, Any], arrays: Arrays) -> Any:
    """Return the estimator that was packed; nothing is encoded, opened or fetched.

    Parameters
    ----------
    cls : type
        The estimator's class.
    record : EstimatorRecord
        Its names on disk.
    state : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ModelFileError
        If the parts do not fit together.
    """
    unpacker = Unpacker(arrays, RECORDS)
    parameters = _unpack_parameters(record, state["parameters"], unpacker)
    estimator = cls(encoder=_unpack_encoder(state["encoder"], unpacker), **parameters)
    for name, packed in state["fitted"].items():
        # a later release adds attributes, which predictions of this one do not read
        if name in record.fitted:
            setattr(estimator, record.fitted[name], _unpack_fitted(record, name, packed, unpacker))
    estimator._validate_params()
    _check_sizes(estimator)
    return estimator


def _pack_fitted(record: EstimatorRecord, fitted: dict[str, Any], packer: Packer) -> dict[str, Any]:
    """Fitted attributes by their names on disk; those of the folds are of the same record."""
    on_disk = {attribute: name for name, attribute in record.fitted.items()}
    return {
        on_disk[attribute]: [_pack_fitted(record, fold, packer) for fold in value]
        if on_disk[attribute] == FOLDS
        else packer.pack(value, attribute)
        for attribute, value in fitted.items()
    }


def _unpack_fitted(record: EstimatorRecord, name: str, packed: Any, unpacker: Unpacker) -> Any:
    if name != FOLDS:
        return unpacker.unpack(packed, name)
    return [
        {record.fitted[one]: unpacker.unpack(value, one) for one, value in fold.items() if one in record.fitted}
        for fold in packed
    ]


def _record_of(cls: type[Any]) -> EstimatorRecord:
    for record in ESTIMATORS.values():
        module, _, name = record.path.partition(":")
        if module in sys.modules and getattr(sys.modules[module], name) is cls:
            return record
    raise ModelFileError(
        f"save writes the classifiers of skxma, and load would not know {cls.__module__}.{cls.__qualname__}; "
        "save it with joblib."
    )


def _pack_parameters(record: EstimatorRecord, parameters: dict[str, Any], packer: Packer) -> dict[str, Any]:
    on_disk = {parameter: name for name, parameter in record.parameters.items()}
    packed = {}
    for parameter, value in parameters.items():
        name = on_disk[parameter]
        if name in PLACES and not (value is None or isinstance(value, bool)):
            continue
        packed[name] = packer.pack(str(value) if isinstance(value, torch.device) else value, parameter)
    return packed


def _unpack_parameters(record: EstimatorRecord, packed: dict[str, Any], unpacker: Unpacker) -> dict[str, Any]:
    """Parameters that this release knows; others, of a later one, are ignored."""
    values = {name: unpacker.unpack(value, name) for name, value in packed.items() if name in record.parameters}
    for name in PLACES:
        if not (values.get(name) is None or isinstance(values[name], bool)):
            raise ModelFileError(f"{name} names a place on disk, which a model file may not.")
    return {record.parameters[name]: value for name, value in values.items()}


def _pack_encoder(encoder: Any, packer: Packer) -> dict[str, Any]:
    """Pack a name as it is, an encoder of ours as its parameters, and of anything else the name of its class.

    Of several encoders each is packed so.
    """
    if isinstance(encoder, (list, tuple)):
        return {"several": [_pack_encoder(one, packer) for one in encoder]}
    if isinstance(encoder, str):
        return {"name": encoder}
    record = next((record for record in ENCODERS.values() if _class_of(record) is type(encoder)), None)
    if record is not None:
        parameters = _pack_parameters(record, encoder.get_params(deep=False), packer)
        return {"type": type_on_disk(record), "parameters": parameters}
    if isinstance(encoder, DetachedEncoder):
        name = encoder.name
    else:
        name = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
    # written where it is unusual, as files of earlier releases do not have it
    said = {"text": has_text(encoder), "text_shapes_metric": text_shapes_metric(encoder)}
    return {"detached": name, **{key: value for key, value in said.items() if not value}}


def _unpack_encoder(packed: dict[str, Any], unpacker: Unpacker) -> Any:
    if "several" in packed:
        return [_unpack_encoder(one, unpacker) for one in packed["several"]]
    if "name" in packed:
        return str(packed["name"])
    if "type" in packed:
        record = find_record(ENCODERS, packed["type"], "the encoder")
        encoder: BaseEstimator = _class_of(record)(**_unpack_parameters(record, packed["parameters"], unpacker)).fit()
        return encoder
    said = (bool(packed.get(key, True)) for key in ("text", "text_shapes_metric"))
    return DetachedEncoder(str(packed["detached"]), *said)


def _class_of(record: EstimatorRecord) -> type[Any]:
    """The class of an encoder of ours."""
    from skxma import encoder

    cls: type[Any] = getattr(encoder, record.path.partition(":")[2])
    return cls


def _check_sizes(estimator: BaseFewShotClassifier) -> None:
    """Refuse classes, labels and widths that do not fit together, before anything is allocated by them."""
    classes, width, text = estimator.classes_, estimator.n_features_in_, estimator.text_features_
    caches = [estimator.image_cache_, *([estimator.model_.image_cache] if hasattr(estimator, "model_") else [])]
    if not (fits(classes, NDArray[Any]) and fits(width, int) and fits(text, Floats) and fits(caches, list[ImageCache])):
        raise ModelFileError("Its classes, texts or caches are not what they should be.")
    for cache in caches:
        keys, labels = cache.keys, cache.labels
        sized = keys.ndim == 2 and keys.shape[1] == width and labels.shape == cache.weights.shape == keys.shape[:1]
        known = not len(labels) or 0 <= labels.min() <= labels.max() < len(classes)
        if not (sized and known and cache.n_classes == len(classes)):
            raise ModelFileError("The keys, labels and classes of its cache do not fit together.")
    blocks = estimator.image_cache_.blocks
    if blocks is not None and not (len(blocks) > 1 and min(blocks) > 0 and sum(blocks) == width):
        raise ModelFileError("The widths of its encoders' embeddings do not sum to that of the keys.")
    # class means, which stand for texts where there are none, are of all encoders
    if text.shape not in {(len(classes), width), (len(classes), width if blocks is None else blocks[0])}:
        raise ModelFileError("Its text features are not one row per class.")
    further = getattr(getattr(estimator, "model_", None), "further", [])
    n_encoders = 1 if blocks is None else len(blocks)
    if any(not 0 < one.block < n_encoders for one in further):
        raise ModelFileError("It has metrics of encoders whose embeddings it lacks.")
    calibration = getattr(estimator, "calibration_", None)
    if calibration is not None:
        n_models = len(getattr(estimator, "fold_fits_", [None]))
        _check_calibration(calibration, len(classes), n_models)


def _check_calibration(calibration: Any, n_classes: int, n_models: int) -> None:
    """Refuse left-out scores that name classes or models which there are not."""
    if not fits(calibration, Calibration):
        raise ModelFileError("Its calibration is not what it should be.")
    shapes = {part.shape for part in (calibration.scores, calibration.labels, calibration.weights, calibration.models)}
    ranges = (calibration.labels, n_classes), (calibration.models, n_models)
    known = all(not len(part) or 0 <= part.min() <= part.max() < n for part, n in ranges)
    n = len(calibration.labels)
    if calibration.log_proba is not None:
        known &= calibration.log_proba.shape == (n, n_classes)
    if calibration.simulated is not None:
        known &= calibration.simulated.ndim == 2 and len(calibration.simulated) == n and calibration.simulated.size > 0
    if len(shapes) > 1 or calibration.scores.ndim != 1 or not known:
        raise ModelFileError("The scores, labels and models of its calibration do not fit together.")
