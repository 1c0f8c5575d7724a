"""Display of the support images retrieved for a query, and of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._labels.arrays import with_spelling_of
from skxma.embeddings import is_embeddings
from skxma.inspection._draw import QUIET, RIGHT, WRONG, legend, pyplot, short, show
from skxma.inspection._labels import support_labels
from skxma.inspection._support import describe_sample, image_at, support_names

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier
    from skxma._estimators.xmadapter import XMAdapterClassifier


class RetrievalDisplay:
    """Each query with the support images retrieved for it, their affinities in both modalities, and the probabilities.

    Make it with :meth:`from_estimator`, or with :meth:`from_predictions` from answers that are at hand.

    Parameters
    ----------
    queries : sequence of images, or None
        None where there are embeddings only.
    support : sequence of images, or None
        The images given to `fit`, in their order.
    support_labels : ndarray of shape (n_samples,)
    found : ndarray of shape (n_queries, n_neighbors)
        Which of the support images were retrieved.
    image_affinity, text_affinity : ndarray of shape (n_queries, n_neighbors)
    classes : ndarray of shape (n_classes,)
    probabilities : ndarray of shape (n_queries, n_classes)
    labels : sequence of length n_queries, optional
        The right answers.
    texts : sequence of length n_samples, optional
        What the prompts call the class of each support image, None for one without text.
    names : sequence of length n_samples, optional
        Paths of the support images. Without `support`, an image is shown if there is a file, else its number and name.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_queries, n_neighbors + 2)
    figure_ : Figure
    """

    def __init__(
        self,
        *,
        queries: Sequence[Any] | None,
        support: Sequence[Any] | None,
        support_labels: NDArray[Any],
        found: NDArray[np.intp],
        image_affinity: NDArray[Any],
        text_affinity: NDArray[Any],
        classes: NDArray[Any],
        probabilities: NDArray[Any],
        labels: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        names: Sequence[str | None] | None = None,
    ) -> None:
        self.queries = queries
        self.support = support
        self.support_labels = support_labels
        self.found = found
        self.image_affinity = image_affinity
        self.text_affinity = text_affinity
        self.classes = classes
        self.probabilities = probabilities
        self.labels = labels
        self.texts = texts
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: XMAdapterClassifier,
        X: Any,
        y: Sequence[Any] | None = None,
        *,
        support: Sequence[Any] | None = None,
        n_neighbors: int = 4,
        n_classes: int = 3,
    ) -> Self:
        """Retrieve for some queries, and plot.

        Parameters
        ----------
        estimator : XMAdapterClassifier
            Fitted.
        X : sequence of images, or array-like of shape (n_queries, n_features)
            Queries; a handful.
        y : sequence of length n_queries, optional
            Their labels.
        support : sequence of images, optional
            What was given to `fit`, so that it can be shown. By default the files whose paths the model has kept in
            `sample_names_`, where they are still there.
        n_neighbors : int, default=4
            Support images a query.
        n_classes : int, default=3
            How many of the most probable classes to show.

        Returns
        -------
        display : RetrievalDisplay
        """
        check_is_fitted(estimator)
        pyplot()  # asked for before images are encoded
        image, text, found = estimator.kneighbors(X, n_neighbors)
        labels = support_labels(estimator)
        return cls.from_predictions(
            (image, text, found),
            estimator.predict_proba(X),
            estimator.classes_,
            labels,
            None if y is None else with_spelling_of(y, estimator.classes_).tolist(),
            queries=None if is_embeddings(X) else X,
            support=support,
            texts=class_texts(estimator, labels),
            names=support_names(estimator),
            n_classes=n_classes,
        )

    @classmethod
    def from_predictions(
        cls,
        neighbors: tuple[Any, Any, Any],
        probabilities: Any,
        classes: Any,
        support_labels: Any,
        y: Sequence[Any] | None = None,
        *,
        queries: Sequence[Any] | None = None,
        support: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        names: Sequence[str | None] | None = None,
        n_classes: int = 3,
    ) -> Self:
        """Plot what was retrieved and answered before.

        Parameters
        ----------
        neighbors : tuple of three array-likes of shape (n_queries, n_neighbors)
            As `kneighbors` gave them: affinities in the image cache and in the text cache, and which of the support
            images.
        probabilities : array-like of shape (n_queries, n_classes)
            As `predict_proba` gave them.
        classes : array-like of shape (n_classes,)
            The labels of the columns of `probabilities`.
        support_labels : array-like of shape (n_samples,)
            Labels of the support images, in the order of the fit.
        y : sequence of length n_queries, optional
            Labels of the queries.
        queries : sequence of images, optional
            The queries themselves.
        support : sequence of images, optional
            What was given to `fit`.
        texts : sequence of length n_samples, optional
            What the prompts call the class of each support image.
        names : sequence of length n_samples, optional
            Paths of the support images.
        n_classes : int, default=3
            How many of the most probable classes to show.

        Returns
        -------
        display : RetrievalDisplay
        """
        image, text, found = (np.asarray(part) for part in neighbors)
        display = cls(
            queries=queries,
            support=support,
            support_labels=np.asarray(support_labels),
            found=found,
            image_affinity=image,
            text_affinity=text,
            classes=np.asarray(classes),
            probabilities=np.asarray(probabilities),
            labels=y,
            texts=texts,
            names=names,
        )
        return display.plot(n_classes=n_classes)

    def plot(self, *, n_classes: int = 3) -> Self:
        """Draw one row per query.

        Parameters
        ----------
        n_classes : int, default=3
            How many of the most probable classes to show.

        Returns
        -------
        display : RetrievalDisplay
        """
        n_queries, n_neighbors = self.found.shape
        columns = n_neighbors + 2
        self.figure_, self.axes_ = pyplot().subplots(
            n_queries,
            columns,
            figsize=(1.7 * columns + 1, 2.1 * n_queries + 0.7),
            squeeze=False,
            width_ratios=[1, 1.4] + [1] * n_neighbors,
            layout="constrained",
        )
        self.figure_.get_layout_engine().set(h_pad=0.08)
        for i, row in enumerate(self.axes_):
            expected = self._expected(i)
            title = f"query {i}" if self.labels is None else f"query: {short(expected)}"
            show(row[0], None if self.queries is None else self.queries[i], title)
            self._bars(row[1], i, expected, min(n_classes, len(self.classes)))
            for ax, j, a, b in zip(row[2:], self.found[i], self.image_affinity[i], self.text_affinity[i], strict=True):
                label = self.support_labels[j]
                name = None if self.names is None else self.names[j]
                image = image_at(name) if self.support is None else self.support[j]
                show(ax, image, short(label), RIGHT if label == expected else WRONG, describe_sample(j, name))
                ax.set_xlabel(f"image {a:+.2f}\n{self._text(j)} {b:+.2f}", fontsize=7, color=QUIET)
        of = "that is answered" if self.labels is None else "of the query"
        note = "Below a support image: its similarity to the query as an image, and that of its class's text (-1 to 1)"
        legend(self.figure_, {f"the class {of}": RIGHT, "another class": WRONG}, note)
        return self

    def _expected(self, i: int) -> Any:
        """The label of a query, or the most probable class where that is not known."""
        return self.classes[self.probabilities[i].argmax()] if self.labels is None else self.labels[i]

    def _text(self, j: int) -> str:
        """The text that the text affinity of a support image belongs to."""
        name = None if self.texts is None else self.texts[j]
        return "text" if name is None else f"“{short(name, 18)}”"

    def _bars(self, ax: Any, i: int, expected: Any, n_classes: int) -> None:
        """Probabilities of the most probable classes."""
        best = self.probabilities[i].argsort()[::-1][:n_classes][::-1]
        colors = [RIGHT if self.classes[c] == expected else WRONG for c in best]
        ax.barh(range(len(best)), self.probabilities[i, best], color=colors, height=0.35)
        for k, c in enumerate(best):
            ax.text(0, k + 0.25, f"{short(self.classes[c])}  {self.probabilities[i, c]:.2f}", fontsize=7, va="bottom")
        ax.set(xlim=(0, 1), ylim=(-0.5, len(best)), yticks=[], xticks=[0, 1])
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_title("probability", fontsize=8)


def class_texts(clf: BaseFewShotClassifier, labels: NDArray[Any]) -> list[str | None]:
    """Name of the class of each label in the prompts, the first of several; None for a class without text."""
    names = clf.class_names_ or [None] * len(clf.classes_)
    firsts = [name if name is None or isinstance(name, str) else next(iter(name)) for name in names]
    return [firsts[c] for c in np.searchsorted(clf.classes_, labels)]
