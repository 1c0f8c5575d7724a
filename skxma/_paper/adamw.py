"""Training of the paper's form by AdamW, with the gradients of `cross_modal.leave_one_out_loss` in closed form.

An epoch is to cost no more than one of Tip-Adapter-F, whose one product with the keys and its gradient are all there is
to do; so nothing else of the size of the cosines is made here twice, and keys stand class by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from skxma import functional as F
from skxma._paper.loss import LoneAffinity
from skxma._paper.module import CrossModalCache
from skxma._paper.nets_backward import NetPair

ADAM_EPS, NETS_PACE = 1e-4, 10.0


@torch.no_grad()
def descend(descent: Descent, weights: Tensor, epochs: Iterable[int]) -> list[float]:
    """AdamW with cosine decay, the nets at ten times the rate of the keys; returns the mean loss of each epoch.

    Samples on which the modalities disagree weigh more (`functional.hard_sample_weights`, by how far they disagreed in
    the epoch before).

    Parameters
    ----------
    descent : Descent
        Its model has what was learned at the end.
    weights : Tensor of shape (N,)
        Sample weights.
    epochs : iterable of int
        One for each pass; what is done between two of them is the caller's.
    """
    model, settings = descent.model, descent.model.settings
    n, any_lone = len(weights), bool(model.lone.any())
    generator = torch.Generator().manual_seed(settings.seed)
    n_steps = settings.n_epochs * -(-n // settings.batch_size)
    hard, lone, curve, step = descent.hardness(), None, [], 0
    for _ in epochs:
        importance = weights[descent.order] * F.hard_sample_weights(hard, settings.hard_sample_weight)
        if any_lone:
            lone = LoneAffinity.of(F.normalise(descent.keys))
        places = descent.place[torch.randperm(n, generator=generator).to(weights.device)]
        losses, found = [], []
        for rows in places.split(settings.batch_size):
            weight = importance[rows]
            loss, hard_rows = descent.differentiate(rows, weight / weight.sum(), lone)
            descent.step(step / n_steps)
            losses.append(loss * len(rows))
            found.append(hard_rows)
            step += 1
        hard = torch.empty_like(hard).index_copy_(0, places, torch.cat(found))
        curve.append(float(sum(losses)) / n)
    descent.put_back()
    return curve


class Descent:
    """The support set class by class, the keys and nets that are trained on it, and their gradients.

    Parameters
    ----------
    model : CrossModalCache
    features : Tensor of shape (N, D)
    zero_shot : Tensor of shape (N, C)

    Attributes
    ----------
    order, place : integer Tensor of shape (N,)
        Which sample stands where, and where each sample stands.
    keys : Tensor of shape (N, D)
    """

    @torch.no_grad()
    def __init__(self, model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> None:
        self.model, self.alpha, self.beta = model, model.alpha, model.beta
        counts = torch.bincount(model.labels, minlength=len(model.mass))
        least, most = int(counts.min()), int(counts.max())
        self.equal_shots = most if least == most else 0
        self.order = torch.argsort(model.labels, stable=True)
        if self.equal_shots:
            # then neighbours in memory are of different classes, and sums over the shots are sums of rows
            self.order = self.order.view(-1, most).T.flatten()
        self.place = torch.argsort(self.order)
        self.labels, weights = model.labels[self.order], model.weights[self.order]
        self.log_weights = weights.log()
        alone, rest, mass = model.lone[self.order], model.rest[self.order], model.mass[self.labels]
        # the evidence of what is left of a class stands for its full mass
        raised = torch.where(alone, 0.0, mass / torch.where(alone, 1.0, rest))
        self.features, self.zero_shot = features[self.order], zero_shot[self.order]
        self.facts = torch.stack([weights, raised, alone.to(weights)], 1)
        self.shots, self.span = counts[self.labels], torch.arange(most, device=counts.device)
        self.first = self.labels if self.equal_shots else (torch.cumsum(counts, 0) - counts)[self.labels]
        n_batch = min(len(features), model.settings.batch_size)
        self.dots, self.contributions = features.new_empty(2, n_batch, len(features))
        self.nets = None
        if model.text is not None:
            self.nets = NetPair(model.img2txt, model.metanet, self.features, model.text, n_batch)

        slow = torch.cat([model.keys[self.order].flatten(), model.share.reshape(1)])
        self.keys, self.share = slow[:-1].view(model.keys.shape), slow[-1]
        slow.grad = torch.zeros_like(slow)
        self.keys_gradient, self.share_gradient = slow.grad[:-1].view(model.keys.shape), slow.grad[-1]
        rate = model.settings.learning_rate
        groups = [{"params": [slow], "pace": rate}]
        if self.nets is not None:
            groups.append({"params": [self.nets.flat], "pace": NETS_PACE * rate})
        decay = model.settings.weight_decay
        self.optimiser = torch.optim.AdamW(groups, eps=ADAM_EPS, weight_decay=decay, fused=True)

    def step(self, done: float) -> None:
        """Step down the gradients; `done` is the share of all steps that were made before, for the cosine decay."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["pace"] * (1 + math.cos(math.pi * done)) / 2
        self.optimiser.step()

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the model what was learned."""
        self.model.keys.data[self.order] = self.keys
        self.model.share.copy_(self.share)
        if self.nets is not None:
            self.nets.put_back()

    def ratio(self) -> float:
        """Fusion ratio γ as it is now."""
        if self.nets is None:
            return 1.0
        held = self.model.settings.fusion_ratio
        return float(torch.sigmoid(self.share)) if held is None else held

    def differentiate(self, rows: Tensor, weights: Tensor, lone: LoneAffinity | None) -> tuple[Tensor, Tensor]:
        """Weighted sum of `cross_modal.leave_one_out_loss` over some rows, leaving its gradients, and their hardness.

        Parameters
        ----------
        rows : integer Tensor of shape (n,)
            In the order of the descent.
        weights : Tensor of shape (n,)
        lone : LoneAffinity or None
            None where no sample is alone in its class.

        Returns
        -------
        loss : Tensor, a scalar
        hardness : Tensor of shape (n,)
        """
        beta, ratio = self.beta, self.ratio()
        labels = self.labels[rows, None]
        x = self.features.index_select(0, rows) if self.nets is None else self.nets.take(rows)
        length = self.keys.norm(dim=1).clamp_min_(F.EPS)
        dots = torch.mm(x, self.keys.T, out=self.dots[: len(rows)])
        contributions = self._contributions(dots, length, rows, beta * ratio)
        evidence = self._sums(contributions)
        if self.nets is None:
            gate, own_text = None, torch.ones_like(labels, dtype=x.dtype)
        else:
            text = self.nets.affinities()
            gate = F.text_gate(text, ratio, beta)
            evidence *= gate
            own_text = text.gather(1, labels)
        facts = self.facts.index_select(0, rows).split(1, 1)
        judged = Judged(self.alpha, evidence, labels, weights[:, None], self.zero_shot.index_select(0, rows), *facts)
        of_simulated = judged.simulate(lone, own_text, ratio, beta) if lone is not None else None
        through = judged.of_evidence * evidence
        of_sums = judged.of_evidence if gate is None else judged.of_evidence.mul_(gate)
        pull = self._pull(contributions, of_sums)
        scaled_sum = self._differentiate_keys(x, dots, pull, length, beta * ratio)
        if self.nets is None:
            return judged.loss, torch.zeros_like(weights)
        towards_text = torch.dot(through.flatten(), text.flatten())
        if lone is not None and of_simulated is not None:
            towards_text -= (of_simulated * (lone.nodes - own_text)).sum()
            through.scatter_add_(1, labels, of_simulated.sum(1, keepdim=True))
        self.nets.differentiate(through.mul_(beta * (1 - ratio)))
        if self.model.settings.fusion_ratio is None:
            # of the ratio it is β Σ pull · (cosine − text), of its logit γ (1 − γ) times that
            self.share_gradient.copy_((scaled_sum - beta * ratio * towards_text) * (1 - ratio))
        return judged.loss, self._disagreement(rows, dots, length, own_text)

    def hardness(self) -> Tensor:
        """Hardness (N,) of all samples; 0 without text."""
        if self.nets is None:
            return torch.zeros_like(self.log_weights)
        length, parts = self.keys.norm(dim=1).clamp_min_(F.EPS), []
        for rows in torch.arange(len(self.keys), device=self.keys.device).split(len(self.dots)):
            x = self.nets.take(rows)
            own_text = self.nets.affinities().gather(1, self.labels[rows, None])
            dots = torch.mm(x, self.keys.T, out=self.dots[: len(rows)])
            parts.append(self._disagreement(rows, dots, length, own_text))
        return torch.cat(parts)

    def _contributions(self, dots: Tensor, length: Tensor, rows: Tensor, scale: float) -> Tensor:
        """``v exp(βγ (cos − 1))`` (n, N), 0 for the own key of each row."""
        contributions = self.contributions[: len(rows)]
        torch.addcmul(self.log_weights - scale, dots, scale / length, out=contributions)
        return contributions.exp_().scatter_(1, rows[:, None], 0.0)

    def _sums(self, contributions: Tensor) -> Tensor:
        """Sums (n, C) over the keys of each class of (n, N)."""
        if self.equal_shots:
            return contributions.view(len(contributions), self.equal_shots, -1).sum(1)
        return F.sum_by_class(contributions, self.labels, len(self.model.mass))

    def _pull(self, contributions: Tensor, of_classes: Tensor) -> Tensor:
        """Contributions (n, N) times what belongs to their classes (n, C), in place."""
        if self.equal_shots:
            contributions.view(len(contributions), self.equal_shots, -1).mul_(of_classes[:, None, :])
            return contributions
        return contributions.mul_(of_classes.index_select(1, self.labels))

    def _differentiate_keys(self, x: Tensor, dots: Tensor, pull: Tensor, length: Tensor, scale: float) -> Tensor:
        """Leave the gradient of the keys, from that `pull` of the logarithms of the contributions (n, N).

        Returns ``βγ Σ pull · cosines``, a scalar.
        """
        steepness = scale / length
        gradient = torch.mm(pull.mul_(steepness).T, x, out=self.keys_gradient)
        along = torch.linalg.vecdot(pull, dots, dim=0)
        scaled_sum = along.sum()
        gradient.addcmul_(self.keys, along.div_(length).div_(-length)[:, None])
        return scaled_sum

    def _disagreement(self, rows: Tensor, dots: Tensor, length: Tensor, own_text: Tensor) -> Tensor:
        """`functional.hardness` of the rows (n,), from the products with all keys (n, N)."""
        if self.equal_shots == 1:
            return own_text.new_zeros(len(rows))
        step = len(self.model.mass) if self.equal_shots else 1
        own = self.first[rows, None] + step * self.span
        counts = own != rows[:, None]
        if not self.equal_shots:
            counts &= self.span < self.shots[rows, None]
            own.clamp_max_(len(length) - 1)
        gap = (dots.gather(1, own).div_(length[own]) - own_text).abs_().mul_(counts)
        return gap.sum(1).div_((self.shots[rows] - 1).clamp_min_(1))


class Judged:
    """The loss of some samples and its gradient in their evidence.

    Parameters
    ----------
    alpha : float
    evidence : Tensor of shape (n, C)
    labels : integer Tensor of shape (n, 1)
    loss_weights : Tensor of shape (n, 1)
    zero_shot : Tensor of shape (n, C)
    weights, raised, alone : Tensor of shape (n, 1)
        Sample weights; what the evidence of the own class is multiplied by; 1 for a sample alone in its class, else 0.

    Attributes
    ----------
    loss : Tensor, a scalar
    of_evidence : Tensor of shape (n, C)
    """

    def __init__(
        self,
        alpha: float,
        evidence: Tensor,
        labels: Tensor,
        loss_weights: Tensor,
        zero_shot: Tensor,
        weights: Tensor,
        raised: Tensor,
        alone: Tensor,
    ) -> None:
        self.alpha, self.labels, self.loss_weights = alpha, labels, loss_weights
        self.zero_shot, self.weights, self.raised, self.alone = zero_shot, weights, raised, alone
        own = evidence.gather(1, labels).mul_(raised)
        self.logits = torch.add(zero_shot, evidence.scatter(1, labels, own), alpha=alpha)
        log_p = torch.log_softmax(self.logits, 1)
        self.loss = -torch.dot(loss_weights[:, 0], log_p.gather(1, labels)[:, 0])
        self.of_evidence = log_p.exp_().mul_(alpha * loss_weights)
        of_own = self.of_evidence.gather(1, labels).sub_(loss_weights, alpha=alpha)
        self.of_evidence.scatter_(1, labels, of_own.mul_(raised))

    def simulate(self, lone: LoneAffinity, own_text: Tensor, ratio: float, beta: float) -> Tensor:
        """Judge anew with the own class of lone samples at the nodes.

        Returns the gradient in β times the simulated fused affinities (n, Q), 0 for samples that are not alone.
        """
        simulated = self.weights * torch.exp(-beta * (1 - F.fuse(lone.nodes[None, :], own_text, ratio)))
        alone = self.alone > 0
        own = self.logits.gather(1, self.labels)
        own = torch.where(alone, own + self.alpha * simulated, own)
        self.logits.scatter_(1, self.labels, -math.inf)
        behind = torch.logsumexp(self.logits, 1, keepdim=True) - own
        self.loss = self.loss_weights[:, 0] @ (torch.nn.functional.softplus(behind) @ lone.weights)
        pulled = torch.sigmoid(behind) * (self.alpha * self.loss_weights * lone.weights)
        towards = pulled.sum(1, keepdim=True)
        of_own = -towards * self.raised
        self.of_evidence = torch.softmax(self.logits, 1).mul_(towards).scatter_(1, self.labels, of_own)
        return torch.where(alone, -pulled * simulated, 0.0)
