"""The loop by which all trained rivals are trained, and the head that several of them have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F

WARMUP_RATE = 1e-5


@dataclass(frozen=True)
class Plan:
    """Settings of the training of a head.

    Attributes
    ----------
    optimizer : {"sgd", "adam", "adamw"}
    learning_rate, weight_decay : float
    n_epochs : int
    batch_size : int
    momentum : float
        Of SGD.
    eps : float
        Of Adam and AdamW.
    decay : bool
        Whether the rate follows half a cosine to 0, step by step; else it stays.
    warmup : int
        Number of first steps at a rate of 1e-5.
    """

    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    n_epochs: int
    batch_size: int = 256
    weight_decay: float = 0.0
    momentum: float = 0.9
    eps: float = 1e-8
    decay: bool = True
    warmup: int = 0

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of some parameters."""
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=self.momentum, **common)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, eps=self.eps, **common)

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return WARMUP_RATE
        if not self.decay:
            return self.learning_rate
        done = (step - self.warmup) / max(1, n_steps - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


def minimize_by_steps(
    parameters: Sequence[Tensor], objective: Callable[[], Tensor], n_steps: int, plan: Plan
) -> list[float]:
    """Minimize an objective, drawn anew at each step; returns its values.

    Parameters
    ----------
    parameters : sequence of Tensor with gradients, changed in place
    objective : callable
        The loss of the next batch.
    n_steps : int
    plan : Plan
    """
    optimizer = plan.build(parameters)
    curve = []
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step, n_steps)
        loss = objective()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        curve.append(loss.detach())
    # read at the end, for each reading waits for the device
    values: list[float] = torch.stack(curve).tolist() if curve else []
    return values


def batches(n: int, size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Row numbers of one batch after another without end, all n in each pass, shuffled where a batch is not all.

    They are drawn on the CPU, so that the same seed gives the same batches everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    everyone = torch.arange(n, device=device)
    while True:
        order = torch.randperm(n, generator=generator).to(device) if size < n else everyone
        yield from torch.split(order, size)


def train(
    parameters: Sequence[Tensor],
    losses: Callable[[Tensor], Tensor],
    weights: Tensor,
    plan: Plan,
    seed: int,
    penalty: Callable[[], Tensor] | None = None,
) -> list[float]:
    """Minimize the weighted mean of the samples' losses; returns its mean over each epoch, penalty included.

    Parameters
    ----------
    parameters : sequence of Tensor with gradients, changed in place
    losses : callable
        From the row numbers of a batch (n,) to the losses of these samples (n,).
    weights : Tensor of shape (N,)
    plan : Plan
    seed : int
        Decides the batches.
    penalty : callable, optional
        Added to the loss of every batch.
    """
    stream = batches(len(weights), plan.batch_size, seed, weights.device)
    steps = steps_a_pass(len(weights), plan.batch_size)

    def objective() -> Tensor:
        rows = next(stream)
        loss = (weights[rows] * losses(rows)).sum() / weights[rows].sum()
        return loss if penalty is None else loss + penalty()

    return means_of(minimize_by_steps(parameters, objective, plan.n_epochs * steps, plan), steps)


def steps_a_pass(n: int, batch_size: int) -> int:
    """Number of batches that hold n samples."""
    return -(-n // batch_size)


def means_of(values: list[float], each: int) -> list[float]:
    """Means of consecutive runs of values."""
    return [float(np.mean(values[i : i + each])) for i in range(0, len(values), each)]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-probability of each label (n,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def cosine_logits(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """``τ cos(f, w)`` (n, C) of L2-normalized features (n, D) and prototypes of any length (C, D)."""
    return scale * F.affinity(features, F.normalize(prototypes))


def linear_start(d_in: int, d_out: int, generator: torch.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weight (d_out, d_in) and bias (d_out,) of a linear layer as torch starts it: uniform within 1/√d_in."""
    bound = 1 / math.sqrt(d_in)
    draw = torch.rand(d_out, d_in + 1, generator=generator, dtype=torch.float64).numpy()
    draw = (2 * draw - 1) * bound
    return draw[:, :-1], draw[:, -1]


def leaf(array: NDArray[Any] | Tensor, like: Tensor) -> Tensor:
    """A copy as a trainable tensor, where and in what precision `like` is."""
    return torch.as_tensor(array).detach().to(like, copy=True).requires_grad_()


def frozen(tensor: Tensor) -> NDArray[np.float32]:
    """A trained tensor as an array that pickles without torch."""
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return array


def count(parameters: Sequence[Tensor]) -> int:
    """Number of scalars in the parameters."""
    return sum(p.numel() for p in parameters)
