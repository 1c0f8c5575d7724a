"""The paper's model as a torch module: keys, MetaNet, Img2TxtNet and fusion ratio (docs/method.md, first section).

XMAdapter, arXiv:2404.12588. Depth, activation and width of the two nets are not stated there, but that they are linear
maps to a lower dimension. With a width for the text cache they are that (`LinearNet`). Without one, the identity, a
trained shift and one narrow hidden layer that starts at zero (`ProjectionNet`) are our reading, so that an untrained
model is a sound one and an epoch costs little more than that of the keys.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skxma import functional as F
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.loss import LossSupport
from skxma._evidence.paper.model import PaperModel
from skxma.caches import Floats, ImageCache, Projection, TextCache, to_tensors


class ProjectionNet(nn.Module):
    """Trainable `Projection`: ``normalize(x + b + relu(x U + a) V)``, b and V zero at the start.

    Parameters
    ----------
    dim : int
        D.
    hidden : int
        Width of the hidden layer.
    generator : torch.Generator
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, dim: int, hidden: int, generator: torch.Generator, like: Tensor) -> None:
        super().__init__()
        # drawn on the CPU, so that the same seed gives the same net on every device
        draw = torch.randn(dim, hidden, generator=generator) / dim**0.5
        self.bias = nn.Parameter(like.new_zeros(dim))
        self.inner = nn.Parameter(draw.to(like))
        self.inner_bias = nn.Parameter(like.new_zeros(hidden))
        self.outer = nn.Parameter(like.new_zeros(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, D) to L2-normalized (n, D)."""
        return F.normalize(x + self.bias + torch.relu(x @ self.inner + self.inner_bias) @ self.outer)

    def to_projection(self) -> Projection:
        """Copy the weights as they are now to arrays."""
        bias, inner, inner_bias, outer = (
            p.detach().cpu().numpy().copy() for p in (self.bias, self.inner, self.inner_bias, self.outer)
        )
        return Projection(None, bias, (inner, inner_bias, outer))

    @torch.no_grad()
    def load_projection(self, trained: Projection) -> None:
        """Take over the weights of a trained net of the same form and width."""
        if trained.weight is not None or trained.hidden is None or trained.bias.shape != self.bias.shape:
            return
        for parameter, array in zip(
            (self.bias, self.inner, self.inner_bias, self.outer), (trained.bias, *trained.hidden), strict=True
        ):
            parameter.copy_(torch.as_tensor(array))


class LinearNet(nn.Module):
    """Trainable `Projection` without a hidden layer, ``normalize(x W + b)``, b zero at the start.

    Parameters
    ----------
    start : Tensor of shape (D, d)
        W at the start.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())
        self.bias = nn.Parameter(start.new_zeros(start.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, D) to L2-normalized (n, d)."""
        return F.normalize(x @ self.weight + self.bias)

    def to_projection(self) -> Projection:
        """Copy the weights as they are now to arrays."""
        weight, bias = (p.detach().cpu().numpy().copy() for p in (self.weight, self.bias))
        return Projection(weight, bias)

    @torch.no_grad()
    def load_projection(self, trained: Projection) -> None:
        """Take over the weights of a trained net of the same form and width."""
        if trained.weight is None or trained.hidden is not None or trained.weight.shape != self.weight.shape:
            return
        self.weight.copy_(torch.as_tensor(trained.weight))
        self.bias.copy_(torch.as_tensor(trained.bias))


Net = ProjectionNet | LinearNet


class CrossModalCache(nn.Module):
    """The trainable cache: image keys, MetaNet, Img2TxtNet, fusion ratio, and the scalars that stay fixed.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
    config : PaperConfig
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, cache: ImageCache, text: Tensor | None, config: PaperConfig, like: Tensor) -> None:
        super().__init__()
        keys, labels, weights = to_tensors(cache.keys, cache.labels, cache.weights, like=like)
        self.support = LossSupport.from_labels(labels, weights, cache.n_classes)
        self.keys = nn.Parameter(keys.clone())
        self.text = text
        self.log_alpha, self.log_beta = np.log(config.alpha_prior), np.log(config.beta_prior)
        self.ratio_logit = nn.Parameter(like.new_zeros(()))
        self.config = config
        if text is not None:
            self.metanet: Net
            self.img2txt: Net
            self.metanet, self.img2txt = make_nets(text, config)

    @torch.no_grad()
    def warm_start_from(self, before: PaperModel, embeddings: Floats) -> None:
        """Take over what an earlier fit learned: the keys of images that it had, the nets, the scalars.

        Parameters
        ----------
        before : PaperModel
        embeddings : ndarray of shape (N, D)
            The keys before training, by which images are recognized.
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
            self.ratio_logit.fill_(float(np.log(before.fusion_ratio + F.EPS) - np.log1p(F.EPS - before.fusion_ratio)))
            self.img2txt.load_projection(before.text_cache.img2txt)
            self.metanet.load_projection(before.text_cache.metanet)

    @property
    def alpha(self) -> float:
        """Residual ratio."""
        return float(np.exp(self.log_alpha)) if self.config.alpha is None else self.config.alpha

    @property
    def beta(self) -> float:
        """Sharpness."""
        return float(np.exp(self.log_beta)) if self.config.beta is None else self.config.beta

    def ratio(self) -> Tensor:
        """Fusion ratio γ; 1 where there is no text."""
        if self.text is None:
            return torch.ones_like(self.ratio_logit)
        if self.config.fusion_ratio is not None:
            return torch.full_like(self.ratio_logit, self.config.fusion_ratio)
        return torch.sigmoid(self.ratio_logit)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Affinities of queries (n, D) to the images (n, N) and to the text of each class (n, C)."""
        image = F.affinity(features, F.normalize(self.keys))
        if self.text is None:
            # the fusion ratio is 1 then
            return image, image.new_ones(len(image), len(self.support.mass))
        return image, F.affinity(self.img2txt(features), self.text_keys(self.text))

    def text_keys(self, text: Tensor) -> Tensor:
        """Text keys ``MetaNet(T)`` (C, d); zeros for classes without text, from which nothing is learned."""
        keys: Tensor = self.metanet(text) * text.any(1, keepdim=True)
        return keys

    @torch.no_grad()
    def to_text_cache(self) -> TextCache | None:
        """Copy the text cache as it is now to arrays; classes without text keep zero keys."""
        if self.text is None:
            return None
        keys = self.text_keys(self.text).float().cpu().numpy()
        return TextCache(keys, self.img2txt.to_projection(), self.metanet.to_projection())


def make_nets(text: Tensor, config: PaperConfig) -> tuple[Net, Net]:
    """MetaNet and Img2TxtNet for class text (C, D), as they are before training.

    Linear ones start from one random projection with orthonormal columns (or rows), which keeps cosines about right.
    """
    generator = torch.Generator().manual_seed(config.seed)
    dim = text.shape[1]
    if config.text_dim is not None:
        # drawn on the CPU, so that the same seed gives the same nets on every device
        start = nn.init.orthogonal_(torch.empty(dim, config.text_dim), generator=generator).to(text)
        return LinearNet(start), LinearNet(start)
    hidden = max(1, dim // config.net_narrowing)
    return ProjectionNet(dim, hidden, generator, text), ProjectionNet(dim, hidden, generator, text)
