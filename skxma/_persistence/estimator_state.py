"""What of a fitted estimator goes into a model file, and an estimator of what comes out of one."""

from __future__ import annotations

import re
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from skxma._calibrated.model import CalibratedCache
from skxma._paper.model import TrainedCache
from skxma._persistence.packing import Arrays, Packer, Unpacker, dataclasses_in, fits
from skxma._semi_supervised.model import PooledModel
from skxma._semi_supervised.pool import Pool
from skxma.caches import Floats, ImageCache
from skxma.encoder._detached import DetachedEncoder
from skxma.errors import ModelFileError

TYPES = dataclasses_in(CalibratedCache, TrainedCache, PooledModel, Pool)
FITTED_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*_")
# Where this machine keeps things is not for a file to say.
PLACES = ("memory", "cache_dir")


def pack_estimator(estimator: Any) -> tuple[dict[str, Any], Arrays]:
    """Return a fitted estimator as JSON and arrays.

    Parameters
    ----------
    estimator : FewShotClassifier

    Returns
    -------
    state : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ModelFileError
        A parameter or an attribute that a model file cannot hold, or an estimator that is not skxma's own.
    """
    cls = type(estimator)
    if cls.__module__.partition(".")[0] != "skxma":
        raise ModelFileError(
            f"save writes the classifiers of skxma, and load would not know {cls.__module__}.{cls.__qualname__}; "
            "save it with joblib."
        )
    parameters = estimator.get_params(deep=False)
    # private attributes are scikit-learn's: callbacks, requests for metadata
    public = {name: value for name, value in vars(estimator).items() if not name.startswith("_")}
    fitted = {name: value for name, value in public.items() if name not in parameters}
    for name in fitted:
        if FITTED_NAME.fullmatch(name) is None:
            raise ModelFileError(
                f"{name!r} is neither a parameter nor the result of a fit, so a model file cannot hold it; "
                "delete it, or save with joblib."
            )
    packer = Packer(TYPES)
    state = {
        "class": cls.__name__,
        "encoder": _pack_encoder(parameters.pop("encoder"), packer),
        "parameters": _pack_parameters(parameters, packer),
        "fitted": {name: packer.pack(value, name) for name, value in fitted.items()},
    }
    return state, packer.arrays


def unpack_estimator(cls: type[Any], state: dict[str, Any], arrays: Arrays) -> Any:
    """Return the estimator that was packed; nothing is encoded, opened or fetched.

    Parameters
    ----------
    cls : type
        The estimator's class, which the caller found in its own list.
    state : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ModelFileError
        If the parts do not fit together.
    """
    unpacker = Unpacker(arrays, TYPES)
    parameters = _unpack_parameters(cls, state["parameters"], unpacker)
    estimator = cls(encoder=_unpack_encoder(state["encoder"], unpacker), **parameters)
    for name, packed in state["fitted"].items():
        if FITTED_NAME.fullmatch(name) is None or hasattr(cls, name):
            raise ModelFileError(f"{name!r} is no result of a fit.")
        setattr(estimator, name, unpacker.unpack(packed, name))
    estimator._validate_params()
    _check_sizes(estimator)
    return estimator


def _pack_parameters(parameters: dict[str, Any], packer: Packer) -> dict[str, Any]:
    packed = {}
    for name, value in parameters.items():
        if name in PLACES and not (value is None or isinstance(value, bool)):
            continue
        packed[name] = packer.pack(str(value) if isinstance(value, torch.device) else value, name)
    return packed


def _unpack_parameters(cls: type[Any], packed: dict[str, Any], unpacker: Unpacker) -> dict[str, Any]:
    """The parameters that this release knows; others, of a later one, are left alone."""
    known = set(cls._get_param_names()) - {"encoder"}
    values = {name: unpacker.unpack(value, name) for name, value in packed.items() if name in known}
    for name in PLACES:
        if not (values.get(name) is None or isinstance(values[name], bool)):
            raise ModelFileError(f"{name} names a place on disk, which a model file may not.")
    return values


def _pack_encoder(encoder: Any, packer: Packer) -> dict[str, Any]:
    """A name as it is, a `CLIPEncoder` as its parameters, and of anything else what it was."""
    from skxma.encoder._clip_encoder import CLIPEncoder

    if isinstance(encoder, str):
        return {"name": encoder}
    if type(encoder) is CLIPEncoder:
        return {"clip_encoder": _pack_parameters(encoder.get_params(deep=False), packer)}
    if isinstance(encoder, DetachedEncoder):
        return {"detached": encoder.name}
    return {"detached": f"{type(encoder).__module__}.{type(encoder).__qualname__}"}


def _unpack_encoder(packed: dict[str, Any], unpacker: Unpacker) -> str | BaseEstimator | DetachedEncoder:
    from skxma.encoder._clip_encoder import CLIPEncoder

    if "name" in packed:
        return str(packed["name"])
    if "clip_encoder" in packed:
        return CLIPEncoder(**_unpack_parameters(CLIPEncoder, packed["clip_encoder"], unpacker)).fit()
    return DetachedEncoder(str(packed["detached"]))


def _check_sizes(estimator: Any) -> None:
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
    if text.shape != (len(classes), width):
        raise ModelFileError("Its text features are not one row a class.")
