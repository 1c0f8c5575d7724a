"""The two nets of the paper's form while they are trained: their cosines and gradients in few, narrow products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from skxma import functional as F
from skxma._paper.module import ProjectionNet


class NetPair:
    """Img2TxtNet and MetaNet, of which the one sees samples and the other texts, both as rows Z of one matrix.

    Their outputs are ``Z W + A S``: S are the outer layers of both and their biases, A a row's hidden layer and a 1,
    with zeros for the other net. Cosines of outputs need only inner products of Z W and S.

    Parameters
    ----------
    img2txt, metanet : ProjectionNet
    features : Tensor of shape (N, D)
    text : Tensor of shape (C, D)
    n_batch : int
        Most samples at once.

    Attributes
    ----------
    flat : Tensor
        All parameters of both, with their gradients.
    """

    def __init__(
        self, img2txt: ProjectionNet, metanet: ProjectionNet, features: Tensor, text: Tensor, n_batch: int
    ) -> None:
        self.pair, self.features, weight = (img2txt, metanet), features, img2txt.weight
        self.width = k = len(img2txt.outer)
        parameters = [getattr(net, name) for name in ("outer", "bias") for net in self.pair]
        parameters += [net.inner.T for net in self.pair] + [net.inner_bias for net in self.pair]
        self.flat = torch.cat([p.flatten() for p in parameters])
        self.flat.grad = torch.zeros_like(self.flat)
        shapes = [(2 * k + 2, len(img2txt.bias)), (2 * k, text.shape[1]), (2 * k,)]
        self.values, self.gradients = (views(whole, shapes) for whole in (self.flat, self.flat.grad))
        # where nothing is projected, both layers see the same rows, and one product serves them
        self.joint = weight is None
        if self.joint:
            both = (4 * k + 2) * text.shape[1]
            self.both, self.both_gradient = (
                whole[:both].view(-1, text.shape[1]) for whole in (self.flat, self.flat.grad)
            )
        self.mapped, mapped_text = (features, text) if weight is None else (features @ weight, text @ weight)
        self.base = self.mapped @ mapped_text.T
        self.squares, self.text_squares = self.mapped.square().sum(1), mapped_text.square().sum(1)
        # the texts stand at the end, and batches of samples right before them
        self.rows = torch.cat([features.new_empty(n_batch, text.shape[1]), text])
        self.mapped_rows = self.rows
        if not self.joint:
            self.mapped_rows = torch.cat([features.new_empty(n_batch, mapped_text.shape[1]), mapped_text])
        # A, and beside it the products of the outputs with S
        self.layers = features.new_zeros(len(self.rows), 2 * (2 * k + 2))
        self.layers[:n_batch, 2 * k] = self.layers[n_batch:, 2 * k + 1] = 1
        self.n_batch, self.present = n_batch, text.any(1)
        self.all_present = bool(self.present.all())

    def put_back(self) -> None:
        """Give the nets what was learned."""
        for net, (outer, bias, inner, inner_bias) in zip(self.pair, by_net(self.values), strict=True):
            net.outer.copy_(outer)
            net.bias.copy_(bias)
            net.inner.copy_(inner)
            net.inner_bias.copy_(inner_bias)

    def take(self, samples: Tensor) -> Tensor:
        """Take the samples of these numbers (n,) for the next affinities, and return them (n, D)."""
        self.samples, skip = samples, self.n_batch - len(samples)
        self.seen_rows, self.seen_mapped, self.seen_layers = (
            of_all[skip:] for of_all in (self.rows, self.mapped_rows, self.layers)
        )
        if not self.joint:
            torch.index_select(self.mapped, 0, samples, out=self.seen_mapped[: len(samples)])
        return torch.index_select(self.features, 0, samples, out=self.seen_rows[: len(samples)])

    def affinities(self) -> Tensor:
        """Cosines (n, C) of the outputs for the samples that were taken, and for the texts."""
        samples, k = self.samples, self.width
        n = len(samples)
        outers, inners, biases = self.values
        self.a, self.out = self.seen_layers.chunk(2, 1)
        hidden = self.a[:, : 2 * k]
        if self.joint:
            products = torch.mm(self.seen_rows, self.both.T)
            seen = products[:, : 2 * k + 2]
            torch.add(products[:, 2 * k + 2 :], biases, out=hidden)
        else:
            seen = self.seen_mapped @ outers.T
            torch.addmm(biases, self.seen_rows, inners.T, out=hidden)
        hidden.relu_()
        hidden[:n, k:], hidden[n:, :k] = 0, 0
        torch.addmm(seen, self.a, outers @ outers.T, out=self.out)
        base = self.base.index_select(0, samples).addmm_(self.out[:n], self.a[n:].T).addmm_(self.a[:n], seen[n:].T)
        squares = torch.cat([self.squares[samples], self.text_squares])
        squares += torch.linalg.vecdot(self.a, seen.add_(self.out))
        self.length = squares.clamp_min_(0).sqrt_().clamp_min_(F.EPS)
        self.cosines = base.div_(self.length[:n, None]).div_(self.length[n:])
        if not self.all_present:
            self.cosines *= self.present
        return self.cosines

    def differentiate(self, of_cosines: Tensor) -> None:
        """Leave the gradients of the parameters, from those of the last cosines (n, C)."""
        if not self.all_present:
            of_cosines = of_cosines * self.present
        n, k = len(of_cosines), self.width
        along = of_cosines * self.cosines
        shrink = torch.cat([along.sum(1), along.sum(0)]).div_(self.length).div_(-self.length)[:, None]
        pull = of_cosines.div_(self.length[:n, None]).div_(self.length[n:])
        of = shrink * self.seen_layers
        of[:n].addmm_(pull, self.seen_layers[n:])
        of[n:].addmm_(pull.T, self.seen_layers[:n])
        outers, inners, biases = self.gradients
        of_seen, of_hidden = of[:, : 2 * k + 2], of[:, 2 * k + 2 : -2]
        of_hidden.masked_fill_(self.a[:, : 2 * k] == 0, 0.0)
        if self.joint:
            torch.mm(of[:, :-2].T, self.seen_rows, out=self.both_gradient)
        else:
            torch.mm(of_seen.T, self.seen_mapped, out=outers)
            torch.mm(of_hidden.T, self.seen_rows, out=inners)
        outers.addmm_(self.a.T @ of_seen, self.values[0])
        torch.sum(of_hidden, 0, out=biases)


def by_net(shaped: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Outer layer, bias, inner layer and its bias of each net, of `NetPair.values` or `NetPair.gradients`."""
    outers, inners, inner_biases = shaped
    return zip(outers[:-2].chunk(2), outers[-2:], inners.T.chunk(2, 1), inner_biases.chunk(2), strict=True)


def views(whole: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Consecutive parts of a flat tensor in their shapes."""
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(whole.split(sizes), shapes, strict=True)]
