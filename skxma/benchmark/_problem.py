"""Data sets as the benchmark sees them: images or embeddings, labels, text, and which images may be learned from."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from skxma.benchmark._names import ACTIVE, DEFAULT_ENCODER, EMOJI, EMOJI_ENCODER, HALVES, PRECOMPUTED, VALIDATED

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier
    from skxma.model_selection import Draw

TEST_SHARE, MOST_OF_POOL = 0.4, 2 / 3


@dataclass(frozen=True)
class Problem:
    """A data set to be benchmarked.

    Attributes
    ----------
    name : str
        What the results call it.
    X : ndarray of shape (n_samples, n_features) or sequence of images
    y : ndarray of shape (n_samples,)
    encoder : str or object
        "precomputed" where X holds embeddings, else what encodes the images.
    class_names, text_features, templates
        As the classifiers take them; None leaves a classifier's own.
    groups : ndarray of shape (n_samples,), optional
        Which image a view is of.
    fold : ndarray of shape (n_samples,) of str, optional
        "train", "val" or "test"; without it the support set is drawn from all and the rest is the test.
    vocabulary : array-like, optional
        Embeddings for classifiers that take a `vocabulary`.
    domains : ndarray of shape (n_samples,) of str, optional
        The domain of each sample, such as a style or a camera.
    source : str, optional
        The domain that is learned from; without it each domain is tested with what was learned on the others.
    learned, tested : bool ndarray of shape (n_samples,), optional
        Samples that the support set is drawn from and those that are tested on if they, and their groups, were not
        drawn; in the place of a `fold`.
    asked : str, optional
        One of `ASKED`: how labels are chosen with protocol "active".
    """

    name: str
    X: Any
    y: NDArray[Any]
    encoder: Any = PRECOMPUTED
    class_names: Any = None
    text_features: Any = None
    templates: Any = None
    groups: NDArray[Any] | None = None
    fold: NDArray[Any] | None = None
    vocabulary: Any = None
    domains: NDArray[Any] | None = None
    source: str | None = None
    learned: NDArray[np.bool_] | None = None
    tested: NDArray[np.bool_] | None = None
    asked: str | None = None

    @property
    def has_own_test(self) -> bool:
        """True if the test may lack classes: predictions are then compared among those that it holds."""
        return self.fold is not None or self.tested is not None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(np.unique(self.y))

    @property
    def encoder_name(self) -> str | None:
        """The name of what encodes the images; None for embeddings, and for an encoder without a name."""
        if isinstance(self.encoder, str):
            return None if self.encoder == PRECOMPUTED else self.encoder
        return getattr(self.encoder, "name", None)

    def features(self, rows: NDArray[np.intp]) -> Any:
        """Embeddings of some samples; images are encoded once, and then in the encoder's store."""
        if isinstance(self.encoder, str) and self.encoder == PRECOMPUTED:
            return self.X[rows]
        return self.encoder.encode_image([self.X[row] for row in rows])

    def settle(self, estimator: BaseFewShotClassifier, seed: int) -> BaseFewShotClassifier:
        """An estimator of this data set: a clone with its encoder, text and seed."""
        from sklearn.base import clone

        known = estimator.get_params(deep=False)
        given = {
            "encoder": self.encoder,
            "class_names": self.class_names,
            "text_features": self.text_features,
            "templates": self.templates,
            "vocabulary": self.vocabulary,
            "random_state": seed,
        }
        if known.get("evidence") == "paper":
            # which reads none, and says so
            del given["vocabulary"]
        return clone(estimator).set_params(
            **{name: value for name, value in given.items() if name in known and value is not None}
        )

    def draw(self, n_shots: int, protocol: str, seed: int) -> Draw:
        """Support, validation and test positions of a seed.

        Parameters
        ----------
        n_shots : int
        protocol : str
            One of `PROTOCOLS`. Validation images are min(n_shots, 4) a class with "few", all that there are with
            "full", else none; with "pool" `split_pool` takes a part of the test. With "active" the support positions
            are the pool from which `n_shots` labels per class are asked for.
        seed : int

        Raises
        ------
        ValueError
            A class has too few images.
        """
        from skxma.model_selection import Draw, FewShotSplit

        order = np.random.default_rng(seed).permutation(len(self.y))
        if protocol == ACTIVE:
            return self._draw_asked(order, n_shots)
        if self.learned is not None and self.tested is not None:
            return self._draw_elsewhere(order, n_shots)
        if self.fold is None:
            validation = protocol if protocol in VALIDATED else None
            split = FewShotSplit(n_shots, 1, validation=validation, random_state=seed)
            return next(split.draw(self.y, self.y, self.groups))
        train = self._some(order, self.fold == "train", n_shots)
        taken = np.zeros(len(self.y), dtype=bool)
        taken[train] = True
        pool = "val" if (self.fold == "val").any() else "train"
        most = {"few": min(n_shots, 4), "full": len(self.y)}.get(protocol, 0)
        chosen = self._some(order[~taken[order]], self.fold == pool, most)
        return Draw(np.sort(train), np.sort(chosen), np.flatnonzero(self.fold == "test"))

    def _draw_elsewhere(self, order: NDArray[np.intp], n_shots: int) -> Draw:
        """The draw from `learned`, tested on what of `tested` has no part in it."""
        from skxma.model_selection import Draw

        assert self.learned is not None
        assert self.tested is not None
        groups = np.arange(len(self.y)) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
        order = order[self.learned[order]]
        # of the views of an image the first
        order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
        for label, count in zip(*np.unique(self.y[order], return_counts=True), strict=True):
            if count < n_shots:
                raise ValueError(f"class {label!r} has {count} images to learn from, fewer than {n_shots} shots.")
        train = self._some(order, self.learned, n_shots)
        test = np.flatnonzero(self.tested & ~np.isin(groups, groups[train]))
        if not len(test):
            raise ValueError(f"{n_shots} shots leave no image of {self.name} to test on.")
        return Draw(np.sort(train), train[:0], test)

    def _draw_asked(self, order: NDArray[np.intp], n_shots: int) -> Draw:
        """The pool from which labels are asked for, of each image one view, and a test of all classes."""
        from skxma.model_selection import Draw

        groups = order if self.groups is None else np.unique(self.groups, return_inverse=True)[1][order]
        order = order[np.sort(np.unique(groups, return_index=True)[1])]
        if self.fold is None:
            by_label = [order[self.y[order] == label] for label in np.unique(self.y)]
            test = np.concatenate([rows[: int(TEST_SHARE * len(rows))] for rows in by_label])
            pool = np.setdiff1d(order, test)
        else:
            pool, test = (order[self.fold[order] == name] for name in ("train", "test"))
        n = n_shots * self.n_classes
        if n > MOST_OF_POOL * len(pool):
            raise ValueError(f"{n} labels are more than two thirds of the {len(pool)} images to choose from.")
        return Draw(np.sort(pool), pool[:0], np.sort(test))

    def split_pool(self, test: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Half of the test positions for a pool without labels, and the other half to test on.

        Parameters
        ----------
        test : ndarray of shape (n,)
        seed : int
        """
        order = np.random.default_rng(seed).permutation(test)
        half = len(order) // 2
        return np.sort(order[:half]), np.sort(order[half:])

    def _some(self, order: NDArray[np.intp], among: NDArray[np.bool_], most: int) -> NDArray[np.intp]:
        """The first samples of each class among some (bool, n_samples), `most` where the class has as many."""
        pool = order[among[order]]
        chosen = [pool[self.y[pool] == label][:most] for label in np.unique(self.y[pool])]
        return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.intp)


def load_problem(
    source: str | os.PathLike[str] | Problem,
    *,
    encoder: Any = None,
    root: str | os.PathLike[str] | None = None,
    memory: Any = None,
    verbose: int = 0,
) -> Problem:
    """Open a data set.

    Parameters
    ----------
    source : str, path-like or Problem
        "emoji"; a feature file (``.npz``); a folder of class folders or a table (``.csv``) of images; or one of
        CoOp's data sets or ImageNet's shifts by name. "/base" after it takes the base classes, "/novel" tests the
        others with what was learned on these, "/all" tests both together.
    encoder : str or object, optional
        What encodes images; "tiny" for the emoji and the default ViT-B/32 for others unless given.
    root : path-like, optional
        The folder that holds CoOp's data sets.
    memory : optional
        Where embeddings are kept, as `CLIPEncoder` takes it.
    verbose : int, default=0
        Above 0, progress of encoding.
    """
    if isinstance(source, Problem):
        return source
    text = os.fspath(source)
    if text.endswith(".npz"):
        return _of_features(text)
    name = encoder or (EMOJI_ENCODER if text == EMOJI else DEFAULT_ENCODER)
    # a small test shows it where bf16 rounds another way on another machine
    precision = "fp32" if text == EMOJI and encoder is None else "auto"
    ready = make_encoder(name, memory, verbose, precision)
    if text == EMOJI:
        from skxma.datasets import load_emoji

        emoji = load_emoji()
        return Problem(EMOJI, emoji.images, emoji.target, ready, domains=emoji.sets)
    if Path(text).exists():
        from skxma.datasets._folders import load_image_folder

        data = load_image_folder(text)
        if data.skipped and verbose:
            print(f"{text}: {data.skipped}", file=sys.stderr)
        return Problem(data.name, data.paths, data.target, ready, groups=data.groups)
    if root is None:
        raise FileNotFoundError(
            f"{text} is no file or folder. If it is one of CoOp's data sets, name the folder in which they lie as root."
        )
    return _of_coop(text, root, ready)


def make_encoder(encoder: Any, memory: Any = None, verbose: int = 0, precision: str = "auto") -> Any:
    """The encoder of a name, which shares its embeddings with all problems; any other object as it is."""
    if not isinstance(encoder, str):
        return encoder
    from skxma.encoder._clip_encoder import CLIPEncoder

    return CLIPEncoder(encoder, precision=precision, memory=memory, verbose=verbose)


def _of_features(path: str) -> Problem:
    from skxma.datasets._features import load_features

    data = load_features(path)
    names = None if data.class_names is None else [str(name) for name in data.class_names]
    return Problem(
        data.name,
        data.data,
        data.target,
        class_names=names,
        text_features=data.text_features,
        groups=data.groups,
        vocabulary=data.vocabulary_features,
    )


def _of_coop(name: str, root: str | os.PathLike[str], encoder: Any) -> Problem:
    """One of CoOp's data sets; a shift of ImageNet and novel classes are tested with what was learned elsewhere."""
    from skxma.datasets._coop import IMAGENET_SHIFTS, load_coop

    bare, _, half = name.partition("/")
    if half not in ("", *HALVES):
        raise ValueError(f"{name!r}: after the slash must stand base, novel or all.")
    if bare in IMAGENET_SHIFTS:
        learned, tested = load_coop("imagenet", root), load_coop(bare, root)
    elif half in ("novel", "all"):
        others: Literal["novel", "all"] = "novel" if half == "novel" else "all"
        learned, tested = load_coop(bare, root, classes="base"), load_coop(bare, root, classes=others)
    else:
        learned = tested = load_coop(bare, root, classes="base" if half else "all")
    kept = [learned.fold != "test", tested.fold == "test"]
    paths = [path for data, rows in zip((learned, tested), kept, strict=True) for path in _pick(data.paths, rows)]
    y, fold = (np.concatenate([learned[key][kept[0]], tested[key][kept[1]]]) for key in ("target", "fold"))
    labels = range(len(learned.class_names)) if half != "base" else np.unique(y).tolist()
    return Problem(
        name,
        paths,
        y,
        encoder,
        class_names={label: learned.class_names[label] for label in labels},
        templates=[learned.template],
        fold=fold,
    )


def _pick(items: Sequence[Any], rows: NDArray[np.bool_]) -> list[Any]:
    return [items[int(row)] for row in np.flatnonzero(rows)]
