"""`suggest` as a query strategy of scikit-activeml."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import SklearnClassifier
from skactiveml.utils import MISSING_LABEL, is_labeled
from sklearn.base import clone

from skxma.active._suggest import suggest
from skxma.caches import Integers


class SuggestQueryStrategy(SingleAnnotatorPoolQueryStrategy):
    """A query strategy of scikit-activeml that asks for the images that `suggest` chooses.

    It needs scikit-activeml (``pip install "skxma[active]"``).

    Parameters
    ----------
    strategy : str, default="auto"
        As in `suggest`.
    random_share : float in [0, 1], default=0.0
        As in `suggest`.
    missing_label : scalar, str, NaN or None, default=NaN
        Value of `y` for a missing label.
    random_state : int, RandomState instance or None, default=None
        Seed of the clusters and of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from skactiveml.classifier import SklearnClassifier
    >>> from skxma import CLIPEncoder, XMAdapterClassifier
    >>> from skxma.active import SuggestQueryStrategy
    >>> from skxma.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> X = CLIPEncoder("tiny").encode_image(emoji.images)
    >>> labels = np.searchsorted(emoji.target_names, emoji.target)
    >>> clf = SklearnClassifier(XMAdapterClassifier("tiny", class_names=emoji.target_names), classes=range(40))
    >>> y = np.full(len(X), np.nan)
    >>> for round in range(2):
    ...     rows = SuggestQueryStrategy(random_state=0).query(X, y, clf, batch_size=40)
    ...     y[rows] = labels[rows]
    >>> int(np.isfinite(y).sum())
    80
    """

    def __init__(
        self,
        strategy: str = "auto",
        random_share: float = 0.0,
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.strategy = strategy
        self.random_share = random_share

    def query(
        self,
        X: Any,
        y: Any,
        clf: Any,
        fit_clf: bool = True,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Integers | tuple[Integers, NDArray[np.float64]]:
        """Choose the samples whose labels are worth most.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings of the images.
        y : array-like of shape (n_samples,)
            Labels, `missing_label` where there is none.
        clf : classifier of skxma, or SklearnClassifier of one
            A classifier of skxma learns from the labeled samples, and with an `unlabeled_label` from the others too.
        fit_clf : bool, default=True
            Whether to fit a clone of `clf` on X and y; before there are labels of two classes it stays unfitted. With
            False, `clf` is used as it is.
        candidates : array-like of shape (n_candidates,) or (n_candidates, n_features), default=None
            Positions in X, or embeddings, among which to choose; None for the samples without a label.
        batch_size : int, default=1
            Number of samples to choose.
        return_utilities : bool, default=False
            Whether to return utilities too.

        Returns
        -------
        query_indices : ndarray of shape (batch_size,)
            Positions in X, or in `candidates` where these are embeddings, the most useful first.
        utilities : ndarray of shape (batch_size, n_samples) or (batch_size, n_candidates)
            With `return_utilities`: before each choice, the number of choices that are left to an image, 0 for those
            that are not chosen, and NaN for those that are no candidates any more.

        Raises
        ------
        TypeError
            A classifier of another kind.
        ValueError
            As by `suggest`.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        pool, mapping = self._transform_candidates(candidates, X, y)
        if mapping is None:
            mapping = np.arange(len(pool))
        clf = self._fitted(clf, X, y) if fit_clf else _inner(clf)
        chosen = suggest(
            clf,
            pool,
            max(batch_size, 1),
            strategy=self.strategy,
            random_share=self.random_share,
            random_state=self.random_state,
        )
        # suggest leaves copies of labeled images out; scikit-activeml wants as many as it asked for
        others = np.setdiff1d(np.arange(len(pool)), chosen)
        rows = mapping[np.concatenate([chosen, others])[:batch_size]]
        if not return_utilities:
            return rows
        is_of_pool = candidates is not None and candidates.ndim > 1
        return rows, _utilities(rows, mapping, len(pool) if is_of_pool else len(X))

    def _fitted(self, clf: Any, X: Any, y: Any) -> Any:
        """A clone of a classifier, fitted if there are labels of two classes."""
        labeled = is_labeled(y, self.missing_label_)
        clf = clone(clf)
        if len(np.unique(y[labeled])) > 1:
            if isinstance(clf, SklearnClassifier) or getattr(clf, "unlabeled_label", None) is not None:
                clf.fit(X, y)
            else:
                clf.fit(X[labeled], y[labeled])
        return _inner(clf)


def _inner(clf: Any) -> Any:
    """The classifier inside of scikit-activeml's wrapper."""
    return getattr(clf, "estimator_", clf.estimator) if isinstance(clf, SklearnClassifier) else clf


def _utilities(rows: Integers, mapping: Integers, n: int) -> NDArray[np.float64]:
    """Choices that are left to each of `n` images, before each choice."""
    batch_size = len(rows)
    utilities = np.full((batch_size, n), np.nan)
    utilities[:, mapping] = 0
    for i, row in enumerate(rows):
        utilities[: i + 1, row] = batch_size - i
        utilities[i + 1 :, row] = np.nan
    return utilities
