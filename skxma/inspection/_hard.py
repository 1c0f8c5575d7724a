"""The support images that are hardest to believe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skxma.inspection._draw import QUIET, RIGHT, WRONG, legend, pyplot, short, show
from skxma.inspection._labels import support_labels
from skxma.inspection._support import describe_sample, image_at, support_names

if TYPE_CHECKING:
    from skxma._estimators.xmadapter import XMAdapterClassifier


class HardSamplesDisplay:
    """Support images on which the two modalities disagree the most, which often are label errors.

    Make it with :meth:`from_estimator`, or from what is known of samples with :meth:`from_predictions`.

    Parameters
    ----------
    images : sequence of images, or None
        What was given to `fit`.
    labels, suggested : ndarray of shape (n_samples,)
        The given label, and the class that the model gives a sample without having seen it.
    hardness, label_noise : ndarray of shape (n_samples,)
    names : sequence of length n_samples, optional
        Paths of the samples. Without `images`, an image is shown if there is a file, else its number and name.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_rows, n_columns)
    figure_ : Figure
    """

    def __init__(
        self,
        *,
        images: Sequence[Any] | None,
        labels: NDArray[Any],
        suggested: NDArray[Any],
        hardness: NDArray[Any],
        label_noise: NDArray[Any],
        names: Sequence[str | None] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.suggested = suggested
        self.hardness = hardness
        self.label_noise = label_noise
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: XMAdapterClassifier,
        images: Sequence[Any] | None = None,
        *,
        by: str = "hardness",
        n_samples: int = 12,
    ) -> Self:
        """Take the hardest support images of a fitted classifier, and plot.

        Parameters
        ----------
        estimator : XMAdapterClassifier
            Fitted.
        images : sequence of images, optional
            What was given to `fit`. By default the files whose paths the model has kept in `sample_names_`, where they
            are still there.
        by : {"hardness", "label_noise"}, default="hardness"
            By how far the modalities disagree, or by the probability that the label is wrong.
        n_samples : int, default=12
            How many.

        Returns
        -------
        display : HardSamplesDisplay
        """
        check_is_fitted(estimator)
        return cls.from_predictions(
            support_labels(estimator),
            estimator.left_out_label_,
            images=images,
            hardness=estimator.hardness_,
            label_noise=estimator.label_noise_,
            names=support_names(estimator),
            by=by,
            n_samples=n_samples,
        )

    @classmethod
    def from_predictions(
        cls,
        labels: Any,
        suggested: Any,
        *,
        hardness: Any,
        label_noise: Any,
        images: Sequence[Any] | None = None,
        names: Sequence[str | None] | None = None,
        by: str = "hardness",
        n_samples: int = 12,
    ) -> Self:
        """Take the hardest of samples that were judged before, or by a method of one's own, and plot.

        Parameters
        ----------
        labels : array-like of shape (n_samples,)
            The given labels.
        suggested : array-like of shape (n_samples,)
            What each sample is taken for by a model that has not seen it.
        hardness : array-like of shape (n_samples,)
            How far the modalities disagree.
        label_noise : array-like of shape (n_samples,)
            Probability that the label is wrong.
        images : sequence of images, optional
            The samples.
        names : sequence of length n_samples, optional
            Their paths.
        by : {"hardness", "label_noise"}, default="hardness"
            As in `from_estimator`.
        n_samples : int, default=12
            How many.

        Returns
        -------
        display : HardSamplesDisplay
        """
        display = cls(
            images=images,
            labels=np.asarray(labels),
            suggested=np.asarray(suggested),
            hardness=np.asarray(hardness),
            label_noise=np.asarray(label_noise),
            names=names,
        )
        return display.plot(by=by, n_samples=n_samples)

    def plot(self, *, by: str = "hardness", n_samples: int = 12, n_columns: int = 6) -> Self:
        """Draw the hardest, row by row.

        Parameters
        ----------
        by : {"hardness", "label_noise"}, default="hardness"
        n_samples, n_columns : int, default=12 and 6

        Returns
        -------
        display : HardSamplesDisplay

        Raises
        ------
        ValueError
            `by` is neither of the two.
        """
        if by not in ("hardness", "label_noise"):
            raise ValueError(f"by must be 'hardness' or 'label_noise', got {by!r}.")
        worst = np.argsort(-getattr(self, by), kind="stable")[:n_samples]
        n_columns = min(n_columns, len(worst))
        n_rows = -(-len(worst) // n_columns)
        self.figure_, self.axes_ = pyplot().subplots(
            n_rows, n_columns, figsize=(1.9 * n_columns, 2.4 * n_rows + 0.5), squeeze=False, layout="constrained"
        )
        for ax in self.axes_.flat[len(worst) :]:
            ax.set_axis_off()
        for ax, i in zip(self.axes_.flat, worst, strict=False):
            agrees = self.suggested[i] == self.labels[i]
            name = None if self.names is None else self.names[i]
            image = image_at(name) if self.images is None else self.images[i]
            show(ax, image, short(self.labels[i]), RIGHT if agrees else WRONG, describe_sample(int(i), name))
            answer = "the model agrees" if agrees else f"rather {short(self.suggested[i])}"
            numbers = f"hardness {self.hardness[i]:.1f}, wrong {self.label_noise[i]:.2f}"
            ax.set_xlabel(f"{answer}\n{numbers}", fontsize=7, color=QUIET)
        note = "hardness: how far image and text disagree; wrong: the probability that the label is wrong"
        legend(
            self.figure_, {"the model agrees with the label": RIGHT, "the model suggests another class": WRONG}, note
        )
        return self
