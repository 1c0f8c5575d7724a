"""The paper's model while it is trained: keys, MetaNet, Img2TxtNet and fusion ratio, and its leave-one-out loss.

XMAdapter, arXiv:2404.12588. Depth, activation and width of the two nets are not stated there: the identity (or a shared
orthogonal projection), a trained shift and one narrow hidden layer that starts at zero are our reading, so that an
untrained model is a sound one and an epoch costs little more than that of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from skxma import functional as F
from skxma._paper.model import TrainedCache
from skxma._statistics import ALONE
from skxma.caches import Floats, ImageCache, Projection, TextCache, like

ALPHA, BETA = 1.0, 5.5
NARROWING = 64


@dataclass(frozen=True)
class PaperSettings:
    """What the caller fixes of a trained fit; None for alpha, beta or fusion ratio is learned."""

    alpha: float | None
    beta: float | None
    fusion_ratio: float | None
    logit_scale: float
    hard_sample_weight: float
    text_dim: int | None
    n_epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    seed: int


class ProjectionNet(nn.Module):
    """Trainable `Projection`: ``normalise(x W + b + relu(x U + a) V)``, W fixed, b and V zero at the start.

    Parameters
    ----------
    dim : int
    weight : Tensor of shape (D, d) or None
        None stands for the identity.
    generator : torch.Generator
    like_this : Tensor
    """

    def __init__(self, dim: int, weight: Tensor | None, generator: torch.Generator, like_this: Tensor) -> None:
        super().__init__()
        d_out, hidden = dim if weight is None else weight.shape[1], max(1, dim // NARROWING)
        draw = torch.randn(dim, hidden, generator=generator) / dim**0.5
        self.weight = weight
        self.bias = nn.Parameter(like_this.new_zeros(d_out))
        self.inner = nn.Parameter(draw.to(like_this))
        self.inner_bias = nn.Parameter(like_this.new_zeros(hidden))
        self.outer = nn.Parameter(like_this.new_zeros(hidden, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, D) to L2-normalised (n, d)."""
        mapped = (x if self.weight is None else x @ self.weight) + self.bias
        return F.normalise(mapped + torch.relu(x @ self.inner + self.inner_bias) @ self.outer)

    def freeze(self) -> Projection:
        """The weights as they are now, as arrays."""
        bias, inner, inner_bias, outer = (
            p.detach().cpu().numpy().copy() for p in (self.bias, self.inner, self.inner_bias, self.outer)
        )
        weight = None if self.weight is None else self.weight.cpu().numpy()
        return Projection(weight, bias, (inner, inner_bias, outer))

    @torch.no_grad()
    def go_on_from(self, before: Projection) -> None:
        """Take over the weights of a trained net, where its widths are the same."""
        if before.hidden is None or before.bias.shape != self.bias.shape or len(before.hidden[0]) != len(self.inner):
            return
        if before.weight is not None:
            self.weight = like(self.bias, before.weight)[0]
        for parameter, array in zip(
            (self.bias, self.inner, self.inner_bias, self.outer), (before.bias, *before.hidden), strict=True
        ):
            parameter.copy_(torch.as_tensor(array))


class CrossModalCache(nn.Module):
    """The trainable cache: image keys, MetaNet, Img2TxtNet, fusion ratio, and the scalars that stay fixed."""

    def __init__(self, cache: ImageCache, text: Tensor | None, settings: PaperSettings, like_this: Tensor) -> None:
        super().__init__()
        keys, self.labels, self.weights = like(like_this, cache.keys, cache.labels, cache.weights)
        self.mass = self.weights.new_zeros(cache.n_classes).index_add(0, self.labels, self.weights)
        own_mass = self.mass[self.labels]
        self.rest = own_mass - self.weights
        # what rounding leaves beside a weight that outweighs all others of its class is no sample
        self.lone = self.rest <= ALONE * own_mass
        self.keys = nn.Parameter(keys.clone())
        self.text = text
        self.log_alpha, self.log_beta = np.log(ALPHA), np.log(BETA)
        self.share = nn.Parameter(like_this.new_zeros(()))
        self.settings = settings
        if text is not None:
            generator = torch.Generator().manual_seed(settings.seed)
            dim = text.shape[1]
            shared = shared_projection(dim, settings.text_dim, generator)
            shared = None if shared is None else shared.to(like_this)
            self.metanet = ProjectionNet(dim, shared, generator, like_this)
            self.img2txt = ProjectionNet(dim, shared, generator, like_this)

    @torch.no_grad()
    def go_on_from(self, before: TrainedCache, embeddings: Floats) -> None:
        """Take over what an earlier fit learned: the keys of pictures that it had, the nets, the scalars.

        Parameters
        ----------
        before : TrainedCache
        embeddings : ndarray of shape (N, D)
            What the keys are before training, by which pictures are known again.
        """
        trained = {
            row.tobytes(): key for row, key in zip(before.image_cache.embeddings, before.image_cache.keys, strict=True)
        }
        for i, row in enumerate(embeddings):
            key = trained.get(row.tobytes())
            if key is not None:
                self.keys[i] = torch.as_tensor(key)
        self.log_alpha, self.log_beta = np.log(max(before.alpha, F.EPS)), np.log(before.beta)
        if self.text is not None and before.text_cache is not None and before.text_cache.metanet is not None:
            self.share.fill_(float(np.log(before.fusion_ratio + F.EPS) - np.log1p(F.EPS - before.fusion_ratio)))
            self.img2txt.go_on_from(before.text_cache.img2txt)
            self.metanet.go_on_from(before.text_cache.metanet)

    @property
    def alpha(self) -> float:
        """Residual ratio."""
        return float(np.exp(self.log_alpha)) if self.settings.alpha is None else self.settings.alpha

    @property
    def beta(self) -> float:
        """Sharpness."""
        return float(np.exp(self.log_beta)) if self.settings.beta is None else self.settings.beta

    def ratio(self) -> Tensor:
        """Fusion ratio γ; 1 where there is no text."""
        if self.text is None:
            return torch.ones_like(self.share)
        if self.settings.fusion_ratio is not None:
            return torch.full_like(self.share, self.settings.fusion_ratio)
        return torch.sigmoid(self.share)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Affinities of queries (n, D) to the images (n, N) and to the text of each class (n, C)."""
        image = F.affinity(features, F.normalise(self.keys))
        if self.text is None:
            # the fusion ratio is 1 then
            return image, image.new_ones(len(image), len(self.mass))
        return image, F.affinity(self.img2txt(features), self.text_keys(self.text))

    def text_keys(self, text: Tensor) -> Tensor:
        """``MetaNet(T)`` (C, d); zeros for classes without text, from which nothing is learned."""
        keys: Tensor = self.metanet(text) * text.any(1, keepdim=True)
        return keys

    @torch.no_grad()
    def freeze_text(self) -> TextCache | None:
        """The text cache as it is now; classes without text keep zero keys."""
        if self.text is None:
            return None
        return TextCache(self.text_keys(self.text).float().cpu().numpy(), self.img2txt.freeze(), self.metanet.freeze())


def shared_projection(dim: int, text_dim: int | None, generator: torch.Generator) -> Tensor | None:
    """What both nets start as (D, d): orthonormal columns or rows; None, the identity, where d is D."""
    if text_dim is None or text_dim == dim:
        return None
    return nn.init.orthogonal_(torch.empty(dim, text_dim), generator=generator)
