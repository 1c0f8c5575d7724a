"""Training of the paper's form by AdamW, with the gradients of `loss.leave_one_out_loss` in closed form.

An epoch is to cost no more than one of Tip-Adapter-F, which is one product of the batch with the keys and its gradient.
So nothing else of the size of the cosines is made here twice, and keys stand class by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.paper.loss import SingletonAffinity
from skxma._evidence.paper.module import CrossModalCache
from skxma._evidence.paper.nets_backward import LinearNetsBackward, ProjectionNetsBackward, nets_backward


@torch.no_grad()
def train_paper(trainer: PaperTrainer, weights: Tensor, epochs: Iterable[int]) -> list[float]:
    """Train by AdamW with cosine decay; returns the mean loss of each epoch.

    Samples on which the modalities disagree weigh more: `functional.hard_sample_weights` of their hardness in the
    epoch before.

    Parameters
    ----------
    trainer : PaperTrainer
        Writes what was learned to its model at the end.
    weights : Tensor of shape (N,)
        Sample weights.
    epochs : iterable of int
        Yields once per pass over the support set; the caller may read the model in between.
    """
    model, config = trainer.model, trainer.model.config
    n, any_singleton = len(weights), bool(model.support.singleton.any())
    generator = torch.Generator().manual_seed(config.seed)
    n_steps = config.n_epochs * -(-n // config.batch_size)
    hard, simulated, curve, step = trainer.hardness(), None, [], 0
    for _ in epochs:
        importance = weights[trainer.order] * F.hard_sample_weights(hard, config.hard_sample_weight)
        if any_singleton:
            simulated = SingletonAffinity.from_keys(F.normalize(trainer.keys), config.singleton)
        # drawn on the CPU and by sample number, so that the same seed gives the same batches everywhere
        places = trainer.place[torch.randperm(n, generator=generator).to(weights.device)]
        losses, hardness = [], []
        for rows in places.split(config.batch_size):
            weight = importance[rows]
            loss, hard_rows = trainer.backward(rows, weight / weight.sum(), simulated)
            trainer.step(step / n_steps)
            losses.append(loss * len(rows))
            hardness.append(hard_rows)
            step += 1
        hard = torch.empty_like(hard).index_copy_(0, places, torch.cat(hardness))
        curve.append(float(sum(losses)) / n)
    trainer.write_back()
    return curve


class PaperTrainer:
    """The support set class by class, the keys and nets that are trained on it, and their gradients.

    Parameters
    ----------
    model : CrossModalCache
    features : Tensor of shape (N, D)
    zero_shot : Tensor of shape (N, C)
        Zero-shot logits.

    Attributes
    ----------
    order, place : integer Tensor of shape (N,)
        The sample at each place, and the place of each sample.
    keys : Tensor of shape (N, D)
        Not normalized, in that order.
    """

    @torch.no_grad()
    def __init__(self, model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> None:
        self.model, self.alpha, self.beta = model, model.alpha, model.beta
        support, config = model.support, model.config
        counts = torch.bincount(support.labels, minlength=len(support.mass))
        least, most = int(counts.min()), int(counts.max())
        self.equal_shots = most if least == most else 0
        self.order = torch.argsort(support.labels, stable=True)
        if self.equal_shots:
            # then neighbors in memory are of different classes, and sums over the shots are sums of rows
            self.order = self.order.view(-1, most).T.flatten()
        self.place = torch.argsort(self.order)
        self.labels, weights = support.labels[self.order], support.weights[self.order]
        self.log_weights = weights.log()
        singleton, rest = support.singleton[self.order], support.rest[self.order]
        mass = support.mass[self.labels]
        # scales the evidence of the rest of a class to its full mass
        mass_ratio = torch.where(singleton, 0.0, mass / torch.where(singleton, 1.0, rest))
        self.features, self.zero_shot = features[self.order], zero_shot[self.order]
        self.sample_facts = torch.stack([weights, mass_ratio, singleton.to(weights)], 1)
        self.shots, self.span = counts[self.labels], torch.arange(most, device=counts.device)
        self.first = self.labels if self.equal_shots else (torch.cumsum(counts, 0) - counts)[self.labels]
        n_batch = min(len(features), config.batch_size)
        self.dots, self.contributions = features.new_empty(2, n_batch, len(features))
        self.nets: ProjectionNetsBackward | LinearNetsBackward | None = None
        if model.text is not None:
            self.nets = nets_backward(model.img2txt, model.metanet, self.features, model.text, n_batch)

        # keys and ratio in one tensor, so that one step of the optimizer moves both
        slow = torch.cat([model.keys[self.order].flatten(), model.ratio_logit.reshape(1)])
        self.keys, self.ratio_logit = slow[:-1].view(model.keys.shape), slow[-1]
        slow.grad = torch.zeros_like(slow)
        self.grad_keys, self.grad_ratio_logit = slow.grad[:-1].view(model.keys.shape), slow.grad[-1]
        rate = config.learning_rate
        groups = [{"params": [slow], "initial_lr": rate}]
        if self.nets is not None:
            groups.append({"params": [self.nets.flat], "initial_lr": config.net_learning_rate_factor * rate})
        self.optimizer = torch.optim.AdamW(groups, eps=config.adam_eps, weight_decay=config.weight_decay, fused=True)

    def step(self, progress: float) -> None:
        """Take one step of AdamW; `progress` is the fraction of the steps made before, for the cosine decay."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 + math.cos(math.pi * progress)) / 2
        self.optimizer.step()

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy what was learned to the model."""
        self.model.keys.data[self.order] = self.keys
        self.model.ratio_logit.copy_(self.ratio_logit)
        if self.nets is not None:
            self.nets.write_back()

    def ratio(self) -> float:
        """Fusion ratio γ as it is now."""
        if self.nets is None:
            return 1.0
        held = self.model.config.fusion_ratio
        return float(torch.sigmoid(self.ratio_logit)) if held is None else held

    def backward(self, rows: Tensor, weights: Tensor, simulated: SingletonAffinity | None) -> tuple[Tensor, Tensor]:
        """Write the gradients of the weighted sum of `loss.leave_one_out_loss` over some rows.

        Parameters
        ----------
        rows : integer Tensor of shape (n,)
            Places in the trainer's order.
        weights : Tensor of shape (n,)
        simulated : SingletonAffinity or None
            None where no sample is alone in its class.

        Returns
        -------
        loss : scalar Tensor
        hardness : Tensor of shape (n,)
        """
        beta, ratio = self.beta, self.ratio()
        labels = self.labels[rows, None]
        x = self.features.index_select(0, rows) if self.nets is None else self.nets.load_batch(rows)
        length = self.keys.norm(dim=1).clamp_min_(F.EPS)
        dots = torch.mm(x, self.keys.T, out=self.dots[: len(rows)])
        contributions = self._contributions(dots, length, rows, beta * ratio)
        evidence = self._sum_by_class(contributions)
        if self.nets is None:
            gate, own_text = None, torch.ones_like(labels, dtype=x.dtype)
        else:
            text = self.nets.affinities()
            gate = F.text_gate(text, ratio, beta)
            evidence *= gate
            own_text = text.gather(1, labels)
        facts = self.sample_facts.index_select(0, rows).split(1, 1)
        gradient = LossGradient(
            self.alpha, evidence, labels, weights[:, None], self.zero_shot.index_select(0, rows), *facts
        )
        grad_simulated = gradient.simulate(simulated, own_text, ratio, beta) if simulated is not None else None
        # gradient in the logarithm of the evidence, through which the text gate acts
        grad_log = gradient.grad_evidence * evidence
        grad_sums = gradient.grad_evidence if gate is None else gradient.grad_evidence.mul_(gate)
        grad_contributions = self._times_class_values(contributions, grad_sums)
        scaled_sum = self._backward_keys(x, dots, grad_contributions, length, beta * ratio)
        if self.nets is None:
            return gradient.loss, torch.zeros_like(weights)
        text_sum = torch.dot(grad_log.flatten(), text.flatten())
        if simulated is not None and grad_simulated is not None:
            text_sum -= (grad_simulated * (simulated.nodes - own_text)).sum()
            grad_log.scatter_add_(1, labels, grad_simulated.sum(1, keepdim=True))
        self.nets.backward(grad_log.mul_(beta * (1 - ratio)))
        if self.model.config.fusion_ratio is None:
            # ∂L/∂γ = β Σ g (cos − A_txt), and ∂γ/∂(logit γ) = γ (1 − γ)
            self.grad_ratio_logit.copy_((scaled_sum - beta * ratio * text_sum) * (1 - ratio))
        return gradient.loss, self._own_class_gap(rows, dots, length, own_text)

    def hardness(self) -> Tensor:
        """Hardness (N,) of all samples; 0 without text."""
        if self.nets is None:
            return torch.zeros_like(self.log_weights)
        length, parts = self.keys.norm(dim=1).clamp_min_(F.EPS), []
        for rows in torch.arange(len(self.keys), device=self.keys.device).split(len(self.dots)):
            x = self.nets.load_batch(rows)
            own_text = self.nets.affinities().gather(1, self.labels[rows, None])
            dots = torch.mm(x, self.keys.T, out=self.dots[: len(rows)])
            parts.append(self._own_class_gap(rows, dots, length, own_text))
        return torch.cat(parts)

    def _contributions(self, dots: Tensor, length: Tensor, rows: Tensor, scale: float) -> Tensor:
        """Contributions ``v exp(βγ (cos − 1))`` (n, N), 0 for the own key of each row; `scale` is βγ.

        This is `functional.modulate` of the cosines times the weights, as ``exp(log v − βγ + (βγ / |k|) x·k)``: one
        pass over the products instead of four.
        """
        contributions = self.contributions[: len(rows)]
        torch.addcmul(self.log_weights - scale, dots, scale / length, out=contributions)
        return contributions.exp_().scatter_(1, rows[:, None], 0.0)

    def _sum_by_class(self, contributions: Tensor) -> Tensor:
        """Sum (n, N) over the keys of each class, giving (n, C)."""
        if self.equal_shots:
            return contributions.view(len(contributions), self.equal_shots, -1).sum(1)
        return F.sum_by_class(contributions, self.labels, len(self.model.support.mass))

    def _times_class_values(self, contributions: Tensor, class_values: Tensor) -> Tensor:
        """Multiply contributions (n, N) by the values (n, C) of their classes, in place."""
        if self.equal_shots:
            contributions.view(len(contributions), self.equal_shots, -1).mul_(class_values[:, None, :])
            return contributions
        return contributions.mul_(class_values.index_select(1, self.labels))

    def _backward_keys(self, x: Tensor, dots: Tensor, grad: Tensor, length: Tensor, scale: float) -> Tensor:
        """Write the gradient of the keys, given that of the logarithms of the contributions (n, N).

        With ``g`` that gradient, ``∂L/∂k = (βγ / |k|) Σ_i g_i (x_i − cos_i k / |k|)``: the part along the key, which
        changes its length alone, is removed.

        Returns ``βγ Σ g · cos``, a scalar.
        """
        torch.mm(grad.mul_(scale / length).T, x, out=self.grad_keys)
        along = torch.linalg.vecdot(grad, dots, dim=0)
        scaled_sum = along.sum()
        self.grad_keys.addcmul_(self.keys, along.div_(length).div_(-length)[:, None])
        return scaled_sum

    def _own_class_gap(self, rows: Tensor, dots: Tensor, length: Tensor, own_text: Tensor) -> Tensor:
        """`functional.hardness` of the rows (n,), from the products with all keys (n, N)."""
        if self.equal_shots == 1:
            return own_text.new_zeros(len(rows))
        step = len(self.model.support.mass) if self.equal_shots else 1
        own = self.first[rows, None] + step * self.span
        counts = own != rows[:, None]
        if not self.equal_shots:
            counts &= self.span < self.shots[rows, None]
            own.clamp_max_(len(length) - 1)
        gap = (dots.gather(1, own).div_(length[own]) - own_text).abs_().mul_(counts)
        return gap.sum(1).div_((self.shots[rows] - 1).clamp_min_(1))


class LossGradient:
    """The loss of some samples and its gradient in their evidence.

    Parameters
    ----------
    alpha : float
    evidence : Tensor of shape (n, C)
    labels : integer Tensor of shape (n, 1)
    loss_weights : Tensor of shape (n, 1)
    zero_shot : Tensor of shape (n, C)
        Zero-shot logits.
    weights, mass_ratio, singleton : Tensor of shape (n, 1)
        Sample weights; factor of the own class's evidence; 1 for a sample alone in its class, else 0.

    Attributes
    ----------
    loss : scalar Tensor
    grad_evidence : Tensor of shape (n, C)
    """

    def __init__(
        self,
        alpha: float,
        evidence: Tensor,
        labels: Tensor,
        loss_weights: Tensor,
        zero_shot: Tensor,
        weights: Tensor,
        mass_ratio: Tensor,
        singleton: Tensor,
    ) -> None:
        self.alpha, self.labels, self.loss_weights = alpha, labels, loss_weights
        self.zero_shot, self.weights, self.mass_ratio, self.singleton = zero_shot, weights, mass_ratio, singleton
        own = evidence.gather(1, labels).mul_(mass_ratio)
        self.logits = torch.add(zero_shot, evidence.scatter(1, labels, own), alpha=alpha)
        log_p = torch.log_softmax(self.logits, 1)
        self.loss = -torch.dot(loss_weights[:, 0], log_p.gather(1, labels)[:, 0])
        # α w (p_c − [c = y]), times the mass ratio where c is the own class
        self.grad_evidence = log_p.exp_().mul_(alpha * loss_weights)
        grad_own = self.grad_evidence.gather(1, labels).sub_(loss_weights, alpha=alpha)
        self.grad_evidence.scatter_(1, labels, grad_own.mul_(mass_ratio))

    def simulate(self, simulated: SingletonAffinity, own_text: Tensor, ratio: float, beta: float) -> Tensor:
        """Recompute loss and gradient with the own class of singletons simulated at the nodes.

        At a node the loss is ``softplus(logsumexp of the others − own logit)``, whose derivative is the probability of
        the others.

        Returns
        -------
        Tensor of shape (n, Q)
            Gradient in β times the simulated fused affinities; 0 for samples that are not alone in their class.
        """
        evidence = self.weights * F.modulate(F.fuse(simulated.nodes[None, :], own_text, ratio), beta)
        singleton = self.singleton > 0
        own = self.logits.gather(1, self.labels)
        own = torch.where(singleton, own + self.alpha * evidence, own)
        self.logits.scatter_(1, self.labels, -math.inf)
        behind = torch.logsumexp(self.logits, 1, keepdim=True) - own
        self.loss = self.loss_weights[:, 0] @ (torch.nn.functional.softplus(behind) @ simulated.weights)
        grad_nodes = torch.sigmoid(behind) * (self.alpha * self.loss_weights * simulated.weights)
        grad_others = grad_nodes.sum(1, keepdim=True)
        grad_own = -grad_others * self.mass_ratio
        self.grad_evidence = torch.softmax(self.logits, 1).mul_(grad_others).scatter_(1, self.labels, grad_own)
        return torch.where(singleton, -grad_nodes * evidence, 0.0)
