"""Losses on distances between embeddings instead of on class scores: triplets mined from the batch, and class centres.

Both look at unit vectors, as the comparison of two faces does, and leave the embedding's length alone. Distances are
squared Euclidean ones, 0 … 4 (2 − 2 · cosine): their gradient is finite where two embeddings are the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.embedder.margins import BadLabels, check_labels, unit, within


class Triplets(NamedTuple):
    """loss: float32 scalar; active: scalar in 0–1, the share of the batch's genuine pairs that still cost something."""

    loss: Tensor
    active: Tensor


class TripletSemiHard(nn.Module):
    """Triplet loss with online semi-hard mining (Schroff et al. 2015, arXiv 1503.03832), for batches of P people × K.

    Every ordered genuine pair (a, p) meets one impostor n: the nearest that is farther from a than p is. It is
    semi-hard, and costs d(a, p) − d(a, n) + margin, where it lies within the margin; else it costs nothing. Where no
    impostor is farther than p, the farthest is taken, the least hard one: no chance is involved. The loss is the mean
    over all genuine pairs. A network that maps all faces to one vector has a loss of exactly `margin`: see
    training.loop.diagnosis.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = within("margin", margin, 1e-3, 4.0)

    def forward(self, embedding: Tensor, label: Tensor) -> Triplets:
        """embedding: [n, d], any length; label: int [n]. Raises BadLabels for a batch without two people, or with one
        picture of each.
        """
        genuine, impostor = _pairs(embedding, label)
        with torch.autocast(embedding.device.type, enabled=False):
            direction = unit(embedding)
            distance = 2 - 2 * direction @ direction.T
        nearest_first = torch.where(impostor, distance, torch.inf).sort(dim=1).values
        place = torch.searchsorted(nearest_first.detach(), distance.detach(), right=True)
        farther = nearest_first.gather(1, place.clamp(max=len(label) - 1))
        farthest = torch.where(impostor, distance, -torch.inf).amax(1, keepdim=True)
        chosen = torch.where(farther.isfinite(), farther, farthest)
        cost = (distance - chosen + self.margin)[genuine].relu()
        return Triplets(cost.mean(), (cost.detach() > 0).to(cost.dtype).mean())


def _pairs(embedding: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(genuine, impostor), bool [n, n] on the embedding's device; a face and itself are neither."""
    if label.shape != embedding.shape[:1]:
        raise BadLabels(f"one label per embedding: got {list(label.shape)} for {list(embedding.shape)}")
    same = label[:, None] == label
    genuine = same & ~torch.eye(len(label), dtype=torch.bool, device=label.device)
    if not genuine.any() or same.all():
        raise BadLabels(
            f"a batch of {len(label)} faces of {len(label.unique())} people has no triplet: "
            "draw several people with several pictures each (the P × K sampler does)"
        )
    return genuine.to(embedding.device), ~same.to(embedding.device)


class CentreLoss(nn.Module):
    """Half the squared distance to the own class centre (Wen et al. 2016, ECCV), the mean over the batch.

    While training, the centres follow the faces after the loss, by the paper's rule: c ← c − rate · Σ (c − x) / (1 + n)
    over an identity's n faces in the batch. They are a buffer, not a parameter: neither the loss's weight nor the
    optimiser's momentum and decay act on them. They start at 0, where they pull at nobody's direction.
    """

    def __init__(self, identities: int, dimension: int, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = within("rate", rate, 0.0, 1.0)
        self.centre = nn.Buffer(torch.zeros(identities, dimension))

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """embedding: [n, d], any length; label: int64 [n], best still on the CPU. Returns a scalar, float32 or
        wider, in 0 … 2; 0 for an empty batch. Raises BadLabels.
        """
        check_labels(label, len(self.centre))
        label = label.to(embedding.device, non_blocking=True)
        direction = unit(embedding)
        away = direction - self.centre[label]
        if self.training:
            self._follow(away.detach(), label)
        return away.square().sum() / 2 / max(1, len(label))

    def _follow(self, away: Tensor, label: Tensor) -> None:
        faces = torch.bincount(label, minlength=len(self.centre))[label]
        self.centre.index_add_(0, label, (self.rate * away / (1 + faces)[:, None]).to(self.centre.dtype))
