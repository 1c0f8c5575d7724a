"""Model files on the command line: where they may be written, and loading them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skxma._runtime.atomic import atomic_write, check_writable
from skxma.benchmark._names import DEFAULT_ENCODER, PRECOMPUTED

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

OURS, PICKLE = ".skxma", ".joblib"
OTHER_PICKLES = (".pkl", ".pickle")
LOCAL_FOLDER = "local-dir:"
# that of `_persistence/hub.py`, which imports torch
HUB_PREFIX = "hf-hub:"


def place_for(path: str, force: bool = False) -> Path:
    """Return the file that is to be written, refused before long work where it cannot or must not be.

    Parameters
    ----------
    path : str
    force : bool, default=False
        Whether a model that is there may be replaced.
    """
    target = Path(path)
    if target.suffix.lower() not in (OURS, PICKLE):
        stem = target.stem if target.suffix.lower() in OTHER_PICKLES else target.name
        raise ValueError(f"--model {path}: name it {stem}{OURS}, or {stem}{PICKLE} for a pickle.")
    return place_for_file(path, force)


def place_for_file(path: str, force: bool) -> Path:
    """Do what `place_for` does, for a file of any name."""
    if check_writable(path).exists() and not force:
        raise FileExistsError(f"{path} is there already. Name another file, or replace it with --force.")
    return Path(path)


def save(clf: BaseFewShotClassifier, target: Path) -> None:
    """Write a model as the name says, whole or not at all."""
    if target.suffix.lower() != PICKLE:
        clf.save(target)
        return
    import joblib

    with atomic_write(target) as stream:
        joblib.dump(clf, stream)


def check_model(path: str) -> None:
    """Refuse a model that is not there, is no model file, or a pickle by a name under which none is opened.

    Parameters
    ----------
    path : str
        As in `load`.
    """
    file = Path(path)
    if not file.is_file() and not path.startswith(HUB_PREFIX):
        raise FileNotFoundError(f"There is no model {path}; `skxma fit DIR --model {path}` makes one.")
    pickled = is_pickle(file)
    if pickled and file.suffix.lower() in OTHER_PICKLES:
        raise ValueError(
            f"{path} is a pickle by its name, and opening one runs whatever code its maker put there. If you trust it, "
            f"rename it to {file.stem}{PICKLE}."
        )
    if not pickled and not path.startswith(HUB_PREFIX):
        from skxma._persistence.model_file import check_start

        check_start(file)


def is_pickle(file: Path) -> bool:
    """Return whether a file is a pickle by its name, and no file that `clf.save` wrote under such a name."""
    if file.suffix.lower() not in (PICKLE, *OTHER_PICKLES):
        return False
    from skxma._persistence.model_file import check_start
    from skxma.errors import ModelFileError

    try:
        check_start(file)
    except (ModelFileError, OSError):
        return True
    return False


def load_model(path: str, *, encoder: str | None = None, device: str | None = None, memory: Any = None) -> Any:
    """Load a saved classifier that takes images. Only ``.joblib`` is opened as a pickle, which may run any code.

    Parameters
    ----------
    path : str
        A file, or "hf-hub:organization/name" for a model of the Hugging Face hub.
    encoder, device : str, optional
        In the place of what the model names.
    memory : optional
        Where embeddings are kept; True, the default of commands that keep them, is left out where what was saved is a
        search or a pipeline.
    """
    check_model(path)
    clf = images_classifier(_load_pickle(path) if is_pickle(Path(path)) else _load_ours(path), path)
    if memory is not None and not _is_own_classifier(clf):
        # the parameter of this name of scikit-learn's pipelines is another
        if memory is not True:
            raise ValueError(f"{path} holds a {type(clf).__name__}, which takes no --memory.")
        memory = None
    settings = {"encoder": encoder and encoder_of_images(encoder), "device": device, "memory": memory}
    settings = {name: value for name, value in settings.items() if value is not None}
    unknown = sorted(settings.keys() - clf.get_params(deep=False).keys())
    if unknown:
        raise ValueError(f"{path} holds a {type(clf).__name__}, which takes no --{unknown[0]}.")
    from skxma._estimators.encoder_parameter import is_several

    if "encoder" in settings and is_several(clf.encoder):
        raise ValueError(
            f"{path} was fitted with {len(clf.encoder)} encoders, and --encoder names one. It knows them itself; where "
            "one was moved, load the model in Python and use set_params(encoder=[...])."
        )
    if "encoder" in settings and hasattr(clf.encoder, "model"):
        settings["encoder__model"] = settings.pop("encoder")
    return clf.set_params(**settings)


@contextmanager
def explained_for_command_line(path: str) -> Iterator[None]:
    """Word the errors of a model whose encoder is not there, or is another, for the command line.

    Parameters
    ----------
    path : str
        The model's.
    """
    from skxma.errors import EncoderMismatchError, WeightsError

    try:
        yield
    except WeightsError as error:
        if LOCAL_FOLDER not in str(error):
            raise
        raise WeightsError(f"{error} If it was moved, say where to with --encoder {LOCAL_FOLDER}DIR.") from error
    except EncoderMismatchError as error:
        raise EncoderMismatchError(
            f"{path} was fitted with other weights than those that its encoder has now. Give the encoder of the fit "
            f"with --encoder, or fit again."
        ) from error


def encoder_of_images(encoder: str) -> str:
    """Return the name of an encoder with the path of a local folder made absolute, so that it holds anywhere.

    Raises
    ------
    ValueError
        The word for no encoder.
    """
    if encoder == PRECOMPUTED:
        raise ValueError(
            f"--encoder {PRECOMPUTED} stands for embeddings, and commands take images. Name an encoder, such as tiny."
        )
    prefix, colon, place = encoder.partition(":")
    folder = Path(place).expanduser()
    # after the name of a library may stand that of a model, too
    if encoder.startswith(LOCAL_FOLDER) or (colon and folder.is_dir() and _is_library(prefix)):
        return f"{prefix}:{folder.absolute()}"
    return encoder


def named_encoders(names: Sequence[str] | None) -> str | list[str]:
    """Return the parameter `encoder` of a classifier for the names of images' encoders; None stands for the default."""
    encoders = [encoder_of_images(name) for name in names or [DEFAULT_ENCODER]]
    return encoders if len(encoders) > 1 else encoders[0]


def _is_library(prefix: str) -> bool:
    from skxma.encoder._model_names import LIBRARIES

    return prefix in LIBRARIES


def own_classifier(clf: Any, path: str) -> Any:
    """Return the classifier of skxma itself, of a search the one that it found best.

    Parameters
    ----------
    clf : object
        As by `load_model`.
    path : str
        The model's.

    Raises
    ------
    ValueError
        It is a pipeline or another wrapper, whose classifier does not see the images as they are.
    """
    clf = getattr(clf, "best_estimator_", clf)
    if not _is_own_classifier(clf):
        raise ValueError(
            f"{path} holds a {type(clf).__name__}, whose classifier sees what other steps make of the images; only "
            "predict and evaluate take it. Fit a classifier alone, with `skxma fit`."
        )
    return clf


def _is_own_classifier(clf: Any) -> bool:
    from skxma._estimators.base import BaseFewShotClassifier

    return isinstance(clf, BaseFewShotClassifier)


def images_classifier(clf: Any, path: str) -> Any:
    """Return the classifier, if it is fitted, of skxma or made with one of skxma, and encodes images itself.

    Parameters
    ----------
    clf : object
        Of a pickle, which may hold anything: a pipeline or a search of a classifier of skxma is returned as it is.
    path : str
    """
    from skxma._estimators.base import BaseFewShotClassifier
    from skxma._estimators.encoder_parameter import is_precomputed

    parts = clf.get_params().values() if hasattr(clf, "get_params") else ()
    ours = [part for part in (clf, *parts) if isinstance(part, BaseFewShotClassifier)]
    if not ours or not hasattr(clf, "classes_"):
        raise ValueError(f"{path} holds a {type(clf).__name__}, not a fitted classifier of skxma.")
    if all(is_precomputed(part.encoder) for part in ours):
        raise ValueError(f"{path} was fitted on embeddings and knows no encoder, so it cannot answer for images.")
    return clf


def _load_ours(path: str) -> Any:
    from skxma.persistence import load as load_ours

    return load_ours(path)


def _load_pickle(path: str) -> Any:
    import joblib

    try:
        return joblib.load(path)
    except Exception as error:
        raise ValueError(f"{path} is no model of skxma, or a damaged one ({type(error).__name__}: {error}).") from error


def memory_of(arguments: argparse.Namespace) -> Any:
    """Return where embeddings are kept: in this process alone with --no-memory, which None would leave open."""
    from skxma.store._memory import default_memory_store

    return default_memory_store() if arguments.memory is None else arguments.memory
