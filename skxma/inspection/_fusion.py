"""Display of the weights of the kinds of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._evidence.calibrated.experts import TEXT_EXPERTS
from skxma.inspection._draw import QUIET, RIGHT, TEXT, WRONG, legend, pyplot

if TYPE_CHECKING:
    from skxma._estimators.xmadapter import XMAdapterClassifier

# The experts in words, and the scalars.
WORDS = {
    "zero_shot": "class text, as CLIP has it",
    "text_cache": "class text, by the support images",
    "centered_text": "class text, centered",
    "image_cache": "nearest support images",
    "prototype": "mean image of a class",
    "gaussian": "spread of a class's images",
}
ABOUT = {
    "alpha": " (weight of the support images)",
    "beta": " (sharpness of retrieval)",
    "fusion ratio": " (share of image against text)",
}
KINDS = {"text alone (zero-shot)": QUIET, "text, adapted to the images": TEXT, "support images": RIGHT}


class FusionDisplay:
    """Weights that the fit gave to each kind of evidence, and the loss of the training.

    A bar shows how much more (or less) the fit relies on a kind of evidence than it would before it has seen an image:
    at 1 just as much, at 0 not at all. Make it with :meth:`from_estimator`.

    Parameters
    ----------
    names : sequence of str
        The experts; none in the paper's form.
    weights : ndarray of shape (n_members, n_experts)
        Of each metric in use, relative to the priors.
    losses : ndarray of shape (n_members,)
        Mean leave-one-out negative log-likelihood in each metric.
    shares : ndarray of shape (n_members,)
        What each metric counts in the mean.
    scalars : mapping from name to float
        Alpha, beta, fusion ratio, logit scale, noise rate.
    loss_curve : sequence of float
        Training loss at each pass, empty where nothing was trained.

    Attributes
    ----------
    axes_ : ndarray of Axes
    figure_ : Figure
    """

    def __init__(
        self,
        *,
        names: list[str],
        weights: NDArray[Any],
        losses: NDArray[Any],
        shares: NDArray[Any],
        scalars: dict[str, float],
        loss_curve: list[float],
    ) -> None:
        self.names = names
        self.weights = weights
        self.losses = losses
        self.shares = shares
        self.scalars = scalars
        self.loss_curve = loss_curve

    @classmethod
    def from_estimator(cls, estimator: XMAdapterClassifier) -> Self:
        """Read a fitted classifier, and plot.

        Parameters
        ----------
        estimator : XMAdapterClassifier
            Fitted.

        Returns
        -------
        display : FusionDisplay
        """
        check_is_fitted(estimator)
        components = getattr(estimator.model_, "components", [])
        return cls(
            names=list(getattr(estimator.model_, "experts", ())),
            weights=np.array([one.weights / one.prior for one in components]),
            losses=np.array([one.loss for one in components]),
            shares=np.array([one.averaging_weight for one in components]),
            scalars={
                "alpha": estimator.alpha_,
                "beta": estimator.beta_,
                "fusion ratio": estimator.fusion_ratio_,
                "logit scale": estimator.logit_scale_,
                "share of wrong labels": estimator.noise_rate_,
            },
            loss_curve=list(estimator.loss_curve_),
        ).plot()

    def plot(self) -> Self:
        """Draw the weights, the scalars and, where there is one, the training's loss.

        Returns
        -------
        display : FusionDisplay
        """
        parts = [self._bars] if len(self.weights) else []
        parts += [self._curve] if self.loss_curve else []
        self.figure_, axes = pyplot().subplots(
            1, max(1, len(parts)), figsize=(6.2 * max(1, len(parts)), 4.2), squeeze=False, layout="constrained"
        )
        self.axes_ = axes[0]
        if not parts:
            self.axes_[0].set_axis_off()
        for part, ax in zip(parts, self.axes_, strict=False):
            part(ax)
        if len(self.weights):
            has_text = not set(TEXT_EXPERTS).isdisjoint(self.names)
            used = {meaning: color for meaning, color in KINDS.items() if color != TEXT or has_text}
            note = "A bar is the mean; each | is one of the metrics in which images are compared"
            legend(self.figure_, used, note if len(self.weights) > 1 else None)
        said = [f"{name} {value:.3g}{ABOUT.get(name, '')}" for name, value in self.scalars.items()]
        if len(self.losses):
            said.append(f"leave-one-out loss {np.average(self.losses, weights=self.shares):.3g}")
        pairs = [",  ".join(said[i : i + 2]) for i in range(0, len(said), 2)]
        self.figure_.suptitle("\n".join(pairs), fontsize=8)
        return self

    def _bars(self, ax: Any) -> None:
        place = np.arange(len(self.names))[::-1]
        colors = [QUIET if n == "zero_shot" else TEXT if n in TEXT_EXPERTS else RIGHT for n in self.names]
        ax.barh(place, np.average(self.weights, 0, self.shares), color=colors, height=0.6)
        for member in self.weights:
            ax.plot(member, place, "|", color="black", markersize=12)
        ax.axvline(1, color=WRONG, linewidth=1, linestyle="--")
        ax.set_yticks(place, [WORDS.get(name, name.replace("_", " ")) for name in self.names])
        ax.set_xlabel("weight relative to that before the fit (dashed)")
        ax.spines[["top", "right"]].set_visible(False)

    def _curve(self, ax: Any) -> None:
        ax.plot(range(1, len(self.loss_curve) + 1), self.loss_curve, color=RIGHT, marker=".")
        ax.set(xlabel="pass over the support set", ylabel="training loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
