"""Tip-Adapter and its fine-tuned form."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors, zero_shot_logits
from skxma.baselines._training import Plan, count, cross_entropy, frozen, leaf, train
from skxma.caches import to_tensors

TIP_ADAM_EPS = 1e-4
"""Of AdamW, in the authors' code."""


class TipAdapterClassifier(BaseFewShotClassifier):
    """Tip-Adapter [1]_: zero-shot logits plus what a cache of the labeled images retrieves; nothing is trained.

    ``logit_scale · f Tᵀ + alpha · exp(−beta (1 − f Fᵀ)) L``, F the labeled images' features and L their labels.

    The official code [2]_ searches 200 × 20 values of beta and alpha on a full validation set, and for ImageNet on the
    test set. Here they are the paper's fixed defaults; :func:`skxma.model_selection.tune` searches them on validation
    images. The official keys are means of 10 augmented views; ``n_views=10`` gives that where X holds images.

    Parameters
    ----------
    alpha : float, default=1.0
        Residual ratio.

    beta : float, default=5.5
        Sharpness.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    References
    ----------
    .. [1] Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022,
       arXiv:2111.03930.
    .. [2] https://github.com/gaopengcuhk/Tip-Adapter
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0),
        "beta": (0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 10.0, 13.0),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
        beta: float = 5.5,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        conformal: str | None = None,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            conformal=conformal,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.alpha = alpha
        self.beta = beta

    def _fit_support(self, task: Task) -> dict[str, Any]:
        return {"n_trained_": 0}

    def _logits(self, features: Tensor) -> Tensor:
        evidence = self.image_cache_.evidence(features, self.beta)
        return F.residual_logits(zero_shot_logits(self, features), evidence, self.alpha)


class TipAdapterFClassifier(BaseFewShotClassifier):
    """Tip-Adapter-F [1]_: Tip-Adapter whose keys F are trained from where they start, with AdamW and cosine decay.

    The official code [2]_ keeps the epoch that is best on the test set, then searches alpha and beta on a full
    validation set. Here it is the last epoch, and alpha and beta are fixed. It draws new augmented views every epoch;
    here the features are those of the images themselves.

    Parameters
    ----------
    alpha : float, default=1.0
        Residual ratio.

    beta : float, default=5.5
        Sharpness.

    n_epochs : int, default=20
        Passes over the support set.

    learning_rate : float, default=1e-3
        Of AdamW at the start.

    batch_size : int, default=256
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    keys_ : ndarray of shape (n_keys, n_features)
        The trained keys.
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022,
       arXiv:2111.03930.
    .. [2] https://github.com/gaopengcuhk/Tip-Adapter
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": (0.5, 1.0, 2.0, 4.0), "beta": (1.0, 3.0, 5.5)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
        beta: float = 5.5,
        n_epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        conformal: str | None = None,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            conformal=conformal,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.alpha = alpha
        self.beta = beta
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        keys = leaf(support.features, support.features)
        zero_shot = support.zero_shot_logits(support.features)

        def losses(rows: Tensor) -> Tensor:
            evidence = F.cache_evidence(F.affinity(support.features[rows], keys), support.values, self.beta)
            return cross_entropy(F.residual_logits(zero_shot[rows], evidence, self.alpha), support.labels[rows])

        plan = Plan("adamw", self.learning_rate, self.n_epochs, self.batch_size, weight_decay=0.01, eps=TIP_ADAM_EPS)
        curve = train([keys], losses, support.weights, plan, torch_seed(self.random_state))
        return {"loss_curve_": curve, "keys_": frozen(keys), "n_trained_": count([keys])}

    def _logits(self, features: Tensor) -> Tensor:
        (keys,) = to_tensors(self.keys_, like=features)
        values = self.image_cache_.value_rows(features)
        evidence = F.cache_evidence(F.affinity(features, keys), values, self.beta)
        return F.residual_logits(zero_shot_logits(self, features), evidence, self.alpha)
