"""SS-Text-U."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma._statistics import class_shares
from skxma.baselines._base import SupportTensors
from skxma.baselines._semi_supervised import UNLABELED_CONSTRAINTS, pool_of
from skxma.baselines._training import frozen
from skxma.caches import to_tensors


class SSTextUClassifier(BaseFewShotClassifier):
    """SS-Text-U [1]_: class texts moved by labeled and unlabeled images, in closed form.

    ``T_c + s n_c / (2 N) · Σ_labeled f + s / M · Σ_u q_uc f``, s the logit scale, n_c of the N labeled images are
    of the class; q assigns the M unlabeled by optimal transport of the logits, with the classes' shares among the
    labeled for marginal. Three rounds of assigning and moving; the answer is the scaled cosine to the result. Without
    unlabeled images the third term is missing. Nothing is trained, and nothing searched on validation images.

    Parameters
    ----------
    n_iter : int, default=3
        Rounds.

    n_transport : int, default=10
        Sinkhorn steps in a round.

    unlabeled_label : str, int, NaN or None, default=None
        As in :class:`~skxma.XMAdapterClassifier`.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    prototypes_ : ndarray of shape (n_classes, n_features)
        Of unit length.

    References
    ----------
    .. [1] Silva-Rodríguez et al., arXiv:2603.02959; https://github.com/jusiro/SS-Text-U
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        **UNLABELED_CONSTRAINTS,
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "n_transport": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        n_iter: int = 3,
        n_transport: int = 10,
        unlabeled_label: Any = None,
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
        self.unlabeled_label = unlabeled_label
        self.n_iter = n_iter
        self.n_transport = n_transport

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        pool, counts = pool_of(task)
        sums = support.means * support.mass[:, None]
        labeled = support.scale * support.mass[:, None] / (2 * support.mass.sum()) * sums
        prototypes = support.text
        if len(pool):
            share = class_shares(support.mass)
            for _ in range(self.n_iter):
                logits = support.scale * F.affinity(pool, F.normalize(prototypes))
                assigned = transport(logits, share, counts, self.n_transport)
                drawn = (assigned * counts[:, None]).T @ pool / counts.sum()
                prototypes = support.text + labeled + support.scale * drawn
        else:
            prototypes = support.text + labeled
        return {"prototypes_": frozen(F.normalize(prototypes)), "n_trained_": 0}

    def _logits(self, features: Tensor) -> Tensor:
        return self.encoder_logit_scale_ * F.affinity(features, *to_tensors(self.prototypes_, like=features))


def transport(logits: Tensor, share: Tensor, counts: Tensor, n_steps: int) -> Tensor:
    """Assignments (M, C) whose rows sum to 1 and whose columns, by `counts` (M,), come near the shares (C,) of all.

    Sinkhorn's steps in the logarithm: columns first, then rows.
    """
    log_q = logits.double() - logits.max()
    log_counts, log_share = counts.double().log()[:, None], share.double().log()
    for _ in range(n_steps):
        log_q = log_q - torch.logsumexp(log_q + log_counts, 0) + log_share
        log_q = log_q - torch.logsumexp(log_q, 1, keepdim=True)
    return log_q.exp().to(logits)
