r"""Cosines between the outputs of Img2TxtNet and MetaNet, and their gradients.

**Linear nets** (`LinearNetsBackward`) map samples and texts to few dimensions, and the gradients are the plain ones.

**Nets with a hidden layer** (`ProjectionNetsBackward`) do so in few and narrow products. Img2TxtNet maps samples f to
``f + relu(f U₁ + a₁) V₁ + b₁``, MetaNet maps texts t to ``t + relu(t U₂ + a₂) V₂ + b₂``, with hidden layers of width k
far below D. Write samples and texts as the rows of one matrix Z, and

- ``S = [V₁; V₂; b₁; b₂]`` (2k + 2, D),
- ``A = [h₁, 0, 1, 0]`` in the row of a sample and ``[0, h₂, 0, 1]`` in that of a text (h a hidden layer),

so that the outputs are ``O = Z + A S``.

**Forward.** With ``Q = Z Sᵀ`` and ``P = O Sᵀ = Q + A S Sᵀ``, both 2k + 2 wide, and ``Z Zᵀ``, which is constant and
computed once, inner products, lengths and cosines of outputs are

1. ``O_i · O_j = Z_i · Z_j + P_i · A_j + A_i · Q_j``
2. ``l_i² = |Z_i|² + A_i · (Q_i + P_i)``
3. ``c_ij = O_i · O_j / (l_i l_j)``, i a sample and j a text.

**Backward.** Let ``G_ij = ∂L / ∂c_ij``. The gradient in the outputs is ``∂L/∂O = M O``, where M is symmetric with
``M_ij = G_ij / (l_i l_j)`` between sample i and text j and ``M_ii = −Σ_j G_ij c_ij / l_i²`` on the diagonal. Hence

1. ``∂L/∂S = Aᵀ M O = (M A)ᵀ Z + (Aᵀ M A) S``
2. ``∂L/∂A = M O Sᵀ = M P``, which relu lets through where the hidden layer is positive,
3. ``∂L/∂U = Zᵀ ∂L/∂A`` and ``∂L/∂a = Σ_i (∂L/∂A)_i``.

No (n, D) array of outputs is made: an epoch costs two products of width 4k + 2 with Z, one forward and one backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.paper.module import LinearNet, Net, ProjectionNet


class ProjectionNetsBackward:
    """Cosines between Img2TxtNet of samples and MetaNet of texts, with gradients in closed form.

    Notation as in the module's docstring.

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
        All parameters of both nets, with their gradients: one tensor, so that one step of the optimizer moves it.
    """

    def __init__(
        self, img2txt: ProjectionNet, metanet: ProjectionNet, features: Tensor, text: Tensor, n_batch: int
    ) -> None:
        self.nets, self.features = (img2txt, metanet), features
        self.width = k = len(img2txt.outer)
        parameters = [getattr(net, name) for name in ("outer", "bias") for net in self.nets]
        parameters += [net.inner.T for net in self.nets] + [net.inner_bias for net in self.nets]
        self.flat = torch.cat([p.flatten() for p in parameters])
        self.flat.grad = torch.zeros_like(self.flat)
        # S, U transposed, and a
        shapes = [(2 * k + 2, len(img2txt.bias)), (2 * k, text.shape[1]), (2 * k,)]
        self.values, self.gradients = (split_views(whole, shapes) for whole in (self.flat, self.flat.grad))
        # S and U multiply the same rows, so one product serves both
        both = (4 * k + 2) * text.shape[1]
        self.both, self.both_gradient = (whole[:both].view(-1, text.shape[1]) for whole in (self.flat, self.flat.grad))
        self.constant = features @ text.T
        self.squares, self.text_squares = features.square().sum(1), text.square().sum(1)
        # the texts stand at the end, and batches of samples right before them
        self.rows = torch.cat([features.new_empty(n_batch, text.shape[1]), text])
        # A and P side by side, so that one product with M serves both
        self.layers = features.new_zeros(len(self.rows), 2 * (2 * k + 2))
        self.layers[:n_batch, 2 * k] = self.layers[n_batch:, 2 * k + 1] = 1
        self.n_batch, self.present = n_batch, text.any(1)
        self.all_present = bool(self.present.all())

    def write_back(self) -> None:
        """Copy what was learned to the nets."""
        for net, (outer, bias, inner, inner_bias) in zip(self.nets, split_by_net(self.values), strict=True):
            net.outer.copy_(outer)
            net.bias.copy_(bias)
            net.inner.copy_(inner)
            net.inner_bias.copy_(inner_bias)

    def load_batch(self, samples: Tensor) -> Tensor:
        """Load the samples of these numbers (n,) for the next affinities, and return them (n, D)."""
        self.samples, skip = samples, self.n_batch - len(samples)
        self.batch_rows, self.batch_layers = (whole[skip:] for whole in (self.rows, self.layers))
        return torch.index_select(self.features, 0, samples, out=self.batch_rows[: len(samples)])

    def affinities(self) -> Tensor:
        """Cosines (n, C) between the loaded samples and the texts; 0 for classes without text."""
        samples, k = self.samples, self.width
        n = len(samples)
        s, _, biases = self.values
        self.a, p = self.batch_layers.chunk(2, 1)
        hidden = self.a[:, : 2 * k]
        products = torch.mm(self.batch_rows, self.both.T)
        q = products[:, : 2 * k + 2]
        torch.add(products[:, 2 * k + 2 :], biases, out=hidden)
        hidden.relu_()
        # the hidden layer of the other net
        hidden[:n, k:], hidden[n:, :k] = 0, 0
        torch.addmm(q, self.a, s @ s.T, out=p)
        dots = self.constant.index_select(0, samples).addmm_(p[:n], self.a[n:].T).addmm_(self.a[:n], q[n:].T)
        squares = torch.cat([self.squares[samples], self.text_squares])
        squares += torch.linalg.vecdot(self.a, q.add_(p))
        self.length = squares.clamp_min_(0).sqrt_().clamp_min_(F.EPS)
        self.cosines = dots.div_(self.length[:n, None]).div_(self.length[n:])
        if not self.all_present:
            self.cosines *= self.present
        return self.cosines

    def backward(self, grad_cosines: Tensor) -> None:
        """Write the gradients of the parameters, given those of the last cosines (n, C)."""
        if not self.all_present:
            grad_cosines = grad_cosines * self.present
        n, k = len(grad_cosines), self.width
        products = grad_cosines * self.cosines
        diagonal = torch.cat([products.sum(1), products.sum(0)]).div_(self.length).div_(-self.length)[:, None]
        m = grad_cosines.div_(self.length[:n, None]).div_(self.length[n:])
        # M [A, P]
        grad = diagonal * self.batch_layers
        grad[:n].addmm_(m, self.batch_layers[n:])
        grad[n:].addmm_(m.T, self.batch_layers[:n])
        grad_s, _, grad_biases = self.gradients
        # the last two columns belong to the constant 1s of A
        ma, grad_hidden = grad[:, : 2 * k + 2], grad[:, 2 * k + 2 : -2]
        grad_hidden.masked_fill_(self.a[:, : 2 * k] == 0, 0.0)
        torch.mm(grad[:, :-2].T, self.batch_rows, out=self.both_gradient)
        grad_s.addmm_(self.a.T @ ma, self.values[0])
        torch.sum(grad_hidden, 0, out=grad_biases)


class LinearNetsBackward:
    """Cosines between ``f W₁ + b₁`` of samples and ``t W₂ + b₂`` of texts, with gradients in closed form.

    Parameters
    ----------
    img2txt, metanet : LinearNet
    features : Tensor of shape (N, D)
    text : Tensor of shape (C, D)

    Attributes
    ----------
    flat : Tensor
        All parameters of both nets, with their gradients: one tensor, so that one step of the optimizer moves it.
    """

    def __init__(self, img2txt: LinearNet, metanet: LinearNet, features: Tensor, text: Tensor) -> None:
        self.nets, self.features, self.text = (img2txt, metanet), features, text
        parameters = [p for net in self.nets for p in (net.weight, net.bias)]
        self.flat = torch.cat([p.flatten() for p in parameters])
        self.flat.grad = torch.zeros_like(self.flat)
        shapes = [tuple(p.shape) for p in parameters]
        self.values, self.gradients = (split_views(whole, shapes) for whole in (self.flat, self.flat.grad))
        self.present = text.any(1)

    def write_back(self) -> None:
        """Copy what was learned to the nets."""
        for net, weight, bias in zip(self.nets, self.values[::2], self.values[1::2], strict=True):
            net.weight.copy_(weight)
            net.bias.copy_(bias)

    def load_batch(self, samples: Tensor) -> Tensor:
        """Load the samples of these numbers (n,) for the next affinities, and return them (n, D)."""
        self.batch = self.features.index_select(0, samples)
        return self.batch

    def affinities(self) -> Tensor:
        """Cosines (n, C) between the loaded samples and the texts; 0 for classes without text."""
        inputs = (self.batch, self.text)
        outputs = [x @ w + b for x, w, b in zip(inputs, self.values[::2], self.values[1::2], strict=True)]
        self.lengths = [output.norm(dim=1, keepdim=True).clamp_min_(F.EPS) for output in outputs]
        self.units = [output.div_(length) for output, length in zip(outputs, self.lengths, strict=True)]
        return (self.units[0] @ self.units[1].T).mul_(self.present)

    def backward(self, grad_cosines: Tensor) -> None:
        """Write the gradients of the parameters, given those of the last cosines (n, C)."""
        grad_cosines = grad_cosines * self.present
        of_units = (grad_cosines @ self.units[1], grad_cosines.T @ self.units[0])
        for i, (x, grad) in enumerate(zip((self.batch, self.text), of_units, strict=True)):
            unit, length = self.units[i], self.lengths[i]
            # what is along the output changes its length alone
            grad_output = (grad - unit * (grad * unit).sum(1, keepdim=True)).div_(length)
            torch.mm(x.T, grad_output, out=self.gradients[2 * i])
            torch.sum(grad_output, 0, out=self.gradients[2 * i + 1])


def nets_backward(
    img2txt: Net, metanet: Net, features: Tensor, text: Tensor, n_batch: int
) -> ProjectionNetsBackward | LinearNetsBackward:
    """The closed form for two nets of one kind; the parameters are those of the classes."""
    if isinstance(img2txt, ProjectionNet) and isinstance(metanet, ProjectionNet):
        return ProjectionNetsBackward(img2txt, metanet, features, text, n_batch)
    assert isinstance(img2txt, LinearNet)
    assert isinstance(metanet, LinearNet)
    return LinearNetsBackward(img2txt, metanet, features, text)


def split_by_net(shaped: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Outer layer, bias, inner layer and its bias of each net, of `ProjectionNetsBackward.values` or `gradients`."""
    s, inners, inner_biases = shaped
    return zip(s[:-2].chunk(2), s[-2:], inners.T.chunk(2, 1), inner_biases.chunk(2), strict=True)


def split_views(whole: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """View consecutive parts of a flat tensor in their shapes."""
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(whole.split(sizes), shapes, strict=True)]
