"""Margin softmax heads: cosine logits in fp32, penalised for the true identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al. 2019, arXiv 1801.07698): s · cos(θ + m) for the true identity.

    Beyond θ = π − m, where cos(θ + m) turns upwards, the line cos θ − m · sin m continues it downwards,
    so that a harder sample never has a smaller penalty. Exact gradient.
    """

    def __init__(self, dimension: int, identities: int, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.randn(identities, dimension) * 0.01)

    def logits(self, embedding: Tensor, label: Tensor) -> Tensor:
        """embedding: [n, d], any length; label: int64 [n]. Returns float32 [n, identities]."""
        if label.numel() and (int(label.min()) < 0 or int(label.max()) >= len(self.weight)):
            raise ValueError(
                f"labels must lie in 0 … {len(self.weight) - 1}, got {label.min()} … {label.max()}"
            )
        with torch.autocast(embedding.device.type, enabled=False):  # 1 − 1e-6 is 1.0 in bf16
            cosine = F.linear(F.normalize(embedding.float()), F.normalize(self.weight.float()))
            target = cosine.gather(1, label[:, None])
            penalised = self._penalise(target)
            return self.scale * cosine.scatter(1, label[:, None], penalised)

    def _penalise(self, cosine: Tensor) -> Tensor:
        cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
        sine = torch.sqrt(1 - cosine * cosine)
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > math.cos(math.pi - self.margin), turned, beyond)

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The mean cross-entropy over the batch, a scalar."""
        return F.cross_entropy(self.logits(embedding, label), label)
