"""The three losses: images with captions, images with their concept, images with each other."""

import torch
from torch.nn.functional import cross_entropy, normalize

CLIP_SMOOTHING = 0.05
HEAD_SCALE = 16.0
CONTRAST_TEMPERATURE = 0.1


def clip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CLIP's loss, in which all of a batch's captions of one concept are right for all of its images."""
    logits = scale * images @ texts.T
    same = (labels[:, None] == labels[None, :]).float()
    target = (1 - CLIP_SMOOTHING) * same / same.sum(1, keepdim=True) + CLIP_SMOOTHING / len(labels)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def concept_loss(images: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cosine cross-entropy over the training concepts; the head is thrown away with the training."""
    return cross_entropy(HEAD_SCALE * images @ normalize(head, dim=-1).T, labels)


def image_loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Supervised contrast: one concept's drawings by two sets lie closer than any others."""
    itself = torch.eye(len(labels), dtype=torch.bool)
    logits = (images @ images.T / CONTRAST_TEMPERATURE).masked_fill(itself, -1e4)
    same = ((labels[:, None] == labels[None, :]) & ~itself).float()
    return -((same * logits.log_softmax(1)).sum(1) / same.sum(1).clamp(min=1)).mean()
