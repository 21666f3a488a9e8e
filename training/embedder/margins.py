"""Margin softmax. A `Margin` says what the cosine to the true identity becomes; a `Head` owns the class centres.

They are apart so that a process which holds a part of the class centres penalises exactly as one that holds all.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import BadConfig

# The angle's gradient is infinite at a cosine of ±1: it stays this far away. Only in fp32, 1 − 1e-6 is 1 in bf16.
_EDGE = 1e-6
_RIGHT_ANGLE = math.pi / 2


class BadLabels(ValueError):
    """Labels that are not int64 in 0 … identities − 1; the message names what was expected and what came."""


def check_labels(label: Tensor, identities: int) -> None:
    """Raises BadLabels unless label is int64 [n] in 0 … identities − 1.

    Unchecked, such a label costs a constant −ln(1e-30) = 69.0776 in some trainers, and a GPU dies of it without a name.
    """
    expected = f"labels must be int64 [n] in 0 … {identities - 1}, got {label.dtype} {list(label.shape)}"
    if label.dtype != torch.int64 or label.ndim != 1:
        raise BadLabels(f"{expected}: give every identity its row number")
    if label.numel() and (int(label.min()) < 0 or int(label.max()) >= identities):
        raise BadLabels(
            f"{expected} in {int(label.min())} … {int(label.max())}: "
            "number the identities anew, or make the head as large as the data"
        )


def unit(vectors: Tensor) -> Tensor:
    """[n, d] of any length and type → unit vectors, float32 or wider."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))


def least_scale(identities: int, probability: float) -> float:
    """The scale below which even a perfect embedding is not given `probability` (in 0–1) for its identity.

    Perfect: cosine 1 to its own centre and 0 to the others (the bound of NormFace, arXiv 1704.06369, and AdaCos,
    1905.00292). Raises ValueError for less than two identities or a probability that is not between 0 and 1.
    """
    if identities < 2 or not 0 < probability < 1:
        raise ValueError(f"needs two identities and a probability in 0–1, got {identities} and {probability}")
    return math.log((identities - 1) * probability / (1 - probability))


def within(name: str, value: float, least: float, most: float) -> float:
    """The option's value as a float. Raises BadConfig unless it is a number in least … most."""
    if not isinstance(value, (int, float)) or not least <= value <= most:
        raise BadConfig(f"{name} must lie in {least:g} … {most:g}, got {value!r}")
    return float(value)


class Margin(nn.Module):
    """What the cosine to the true identity becomes before the softmax. Never smaller for a smaller angle.

    scale: what all cosines are multiplied by (s). strength: 0 (no margin) … 1 (the whole), for a warm-up of the margin;
    the training loop sets it, it is not in the state_dict. label_smoothing: only ScaledSoftmax has any.
    """

    label_smoothing = 0.0

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = within("scale", scale, 1.0, 1024.0)
        self.strength = 1.0

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        """cosine: float32 or wider [n], of each embedding to its own class centre; norm: [n], the embeddings' lengths,
        which only AdaFace needs. Returns [n] of the same type, not yet scaled. Called once a step, on the whole batch.
        """
        raise NotImplementedError


class ScaledSoftmax(Margin):
    """No margin: s · cos θ (NormFace, arXiv 1704.06369).

    label_smoothing: the share of probability that is spread over all identities. Margins have none: it pulls the
    embedding towards the other centres, which is what they push against.
    """

    def __init__(self, *, scale: float = 64.0, label_smoothing: float = 0.0) -> None:
        super().__init__(scale)
        self.label_smoothing = within("label_smoothing", label_smoothing, 0.0, 0.5)

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        return cosine


class CosFace(Margin):
    """Additive cosine margin (Wang et al. 2018, arXiv 1801.09414): cos θ − m."""

    def __init__(self, *, scale: float = 64.0, margin: float = 0.4) -> None:
        super().__init__(scale)
        self.margin = within("margin", margin, 0.0, 1.0)

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        return cosine - self.strength * self.margin


class ArcFace(Margin):
    """Additive angular margin (Deng et al. 2019, arXiv 1801.07698): cos(θ + m), in radians.

    gradient: "exact", or "straight_through", which passes the gradient on as if there were no margin. The public
    ArcFace trainers do the second without saying so; it never weakens the pull of the hardest samples.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        gradient: Literal["exact", "straight_through"] = "exact",
    ) -> None:
        super().__init__(scale)
        self.margin = within("margin", margin, 0.0, _RIGHT_ANGLE)
        if gradient not in ("exact", "straight_through"):
            raise BadConfig(f'gradient must be "exact" or "straight_through", got {gradient!r}')
        self.gradient = gradient

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        margin = self.strength * self.margin
        penalised = _cosine_of(_angle(cosine) + margin, cosine - margin * math.sin(margin))
        if self.gradient == "straight_through":
            return cosine + (penalised - cosine).detach()
        return penalised


class CombinedMargin(Margin):
    """SphereFace's, ArcFace's and CosFace's margins in one (arXiv 1801.07698, section 3): cos(m₁ · θ + m₂) − m₃.

    factor: m₁; angle: m₂, in radians; cosine: m₃. The defaults are the paper's first combination; (0.9, 0.4, 0.15)
    is its second. Raises BadConfig where m₁ · θ + m₂ passes π while θ is not yet beyond a right angle.
    """

    def __init__(
        self, *, scale: float = 64.0, factor: float = 1.0, angle: float = 0.3, cosine: float = 0.2
    ) -> None:
        super().__init__(scale)
        self.factor = within("factor", factor, 0.5, 2.0)
        self.angle = within("angle", angle, 0.0, _RIGHT_ANGLE)
        self.cosine = within("cosine", cosine, 0.0, 1.0)
        if (math.pi - angle) / factor < _RIGHT_ANGLE:
            raise BadConfig(f"factor {factor} and angle {angle} together are too large: lower one of them")

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        factor = 1 + self.strength * (self.factor - 1)
        angle = self.strength * self.angle
        turn = math.pi - (math.pi - angle) / factor  # so far before π the sum reaches π
        combined = _cosine_of(factor * _angle(cosine) + angle, cosine - turn * math.sin(turn))
        return combined - self.strength * self.cosine


class DynamicMargin(Margin):
    """An angular margin that grows with the angle: cos(θ + m(θ)), m(θ) = least + (most − least) · (1 − cos θ) / 2.

    A harder sample has the larger margin: `least` at θ = 0, the mean of both at a right angle, `most` at π (radians).
    m is detached, so that the gradient is ArcFace's with that margin and not the margin's own. The value falls with θ:
    θ + m(θ) rises, and so its cosine falls down to −1 at π; beyond, the value is cos θ − most · sin(most), which
    falls, and starts below −1: where m(θ) = π − θ, it is −cos m − most · sin(most) ≤ −cos m − m · sin m ≤ −1.
    """

    def __init__(self, *, scale: float = 64.0, least: float = 0.3, most: float = 0.6) -> None:
        super().__init__(scale)
        self.least = within("least", least, 0.0, _RIGHT_ANGLE)
        self.most = within("most", most, least, _RIGHT_ANGLE)

    def margin(self, cosine: Tensor) -> Tensor:
        """m(θ) in radians, at full strength, without gradient."""
        return self.least + (self.most - self.least) * (1 - cosine.detach().clamp(-1, 1)) / 2

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        most = self.strength * self.most
        angle = _angle(cosine) + self.strength * self.margin(cosine)
        return _cosine_of(angle, cosine - most * math.sin(most))


class AdaFace(Margin):
    """Quality-adaptive margin (Kim et al. 2022, arXiv 2204.00964): cos(θ − m · z) − (m + m · z).

    z in −1 … 1 is how long the embedding is among the others, h standard deviations to one unit: hard samples count
    more where the picture is good, less where it is not. Length is a measure here, not a target: it has no gradient.

    concentration: h. momentum: the new batch's share in the running mean and deviation of the lengths (buffers), at
    most: the first batches are averaged, so that no constant of another network has to be forgotten first.
    """

    lengths = (1e-3, 100.0)  # what is shorter or longer counts as this

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        concentration: float = 0.333,
        momentum: float = 0.01,
    ) -> None:
        super().__init__(scale)
        self.margin = within("margin", margin, 0.0, 1.0)
        self.concentration = within("concentration", concentration, 0.0, 10.0)
        self.momentum = within("momentum", momentum, 1e-6, 1.0)
        self.batches = nn.Buffer(torch.zeros(()))
        self.mean = nn.Buffer(torch.zeros(()))
        self.deviation = nn.Buffer(torch.zeros(()))

    def quality(self, norm: Tensor) -> Tensor:
        """z in −1 … 1 of embeddings of these lengths [n], without gradient; 0 where no batch was seen yet."""
        z = (norm.detach().clamp(*self.lengths) - self.mean) / (self.deviation + 1e-3)
        return torch.where(self.batches > 0, (self.concentration * z).clamp(-1, 1), 0.0)

    def penalise(self, cosine: Tensor, norm: Tensor | None = None) -> Tensor:
        if norm is None:
            raise ValueError("AdaFace needs the embeddings' lengths: give `norm`")
        if self.training and len(norm) > 1:  # one length has no deviation
            self._follow(norm.detach().to(self.mean.dtype).clamp(*self.lengths))
        margin = self.strength * self.margin
        z = self.quality(norm).to(cosine.dtype)
        angle = (_angle(cosine) - margin * z).clamp(1e-3, math.pi - 1e-3)
        return angle.cos() - margin * (1 + z)

    def _follow(self, norm: Tensor) -> None:
        self.batches.add_(1)
        share = (1 / self.batches).clamp(min=self.momentum)
        self.mean.lerp_(norm.mean(), share)
        self.deviation.lerp_(norm.std(), share)


class Head(nn.Module):
    """A classifier over all training identities, by the cosine to their centres; the state_dict's key is `weight`.

    Everything is computed in float32 (float64 for float64), whatever autocast says. Raises BadConfig for less than
    two identities.
    """

    def __init__(self, margin: Margin, dimension: int, identities: int) -> None:
        super().__init__()
        if identities < 2:
            raise BadConfig(
                f"a classifier needs at least two identities, got {identities}: add people to the set"
            )
        self.margin = margin
        self.weight = nn.Parameter(torch.randn(identities, dimension) * 0.01)

    def cosine(self, embedding: Tensor) -> Tensor:
        """[n, d], any length → float32 [n, identities] in −1 … 1, without a margin (what can be distilled)."""
        with torch.autocast(embedding.device.type, enabled=False):  # 1 − 1e-6 is 1.0 in bf16
            direction = unit(embedding)
            return F.linear(direction, unit(self.weight).to(direction.dtype))

    def logits(self, embedding: Tensor, label: Tensor) -> Tensor:
        """embedding: [n, d], any length; label: int64 [n], best still on the CPU, where its check waits for no device.

        Returns float32 [n, identities]: the scaled cosines, the true identity's with its margin. Raises BadLabels.
        """
        check_labels(label, len(self.weight))
        place = label.to(embedding.device, non_blocking=True)[:, None]
        cosine = self.cosine(embedding)
        norm = embedding.detach().to(cosine.dtype).norm(dim=1)
        penalised = self.margin.penalise(cosine.gather(1, place)[:, 0], norm)
        return self.margin.scale * cosine.scatter(1, place, penalised[:, None])

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The mean cross-entropy over the batch, a scalar; 0 for an empty one."""
        total = F.cross_entropy(
            self.logits(embedding, label),
            label.to(embedding.device, non_blocking=True),
            label_smoothing=self.margin.label_smoothing,
            reduction="sum",
        )
        return total / max(1, len(label))


MARGINS: dict[str, type[Margin]] = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "combined": CombinedMargin,
    "adaface": AdaFace,
    "dynamic": DynamicMargin,
    "softmax": ScaledSoftmax,
}


def margin(name: str, **options: Any) -> Margin:
    """Raises BadConfig for an unknown name, an unknown option or an impossible value."""
    if name not in MARGINS:
        raise BadConfig(f"margin {name!r} is unknown; known are {', '.join(MARGINS)}")
    known = list(inspect.signature(MARGINS[name].__init__).parameters)[1:]
    if unknown := sorted(options.keys() - set(known)):
        raise BadConfig(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return MARGINS[name](**options)


def head(name: str, dimension: int, identities: int, **options: Any) -> Head:
    """A classifier with that margin. Raises BadConfig as `margin` and `Head` do."""
    return Head(margin(name, **options), dimension, identities)


def _angle(cosine: Tensor) -> Tensor:
    """θ in radians, with a finite gradient everywhere."""
    return cosine.clamp(-1 + _EDGE, 1 - _EDGE).acos()


def _cosine_of(angle: Tensor, beyond: Tensor) -> Tensor:
    """cos(angle) up to π. Further on it would rise again, and a harder sample cost less: there, `beyond`."""
    return torch.where(angle <= math.pi, angle.cos(), beyond)
