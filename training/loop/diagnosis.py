"""Why a training run fails, by name: each symptom that is known has a cause and an advice.

    diagnosis = Diagnosis(triplet_margin=0.2)
    …
    for advice in diagnosis.check(step, losses, gradient=norm, precision=precision, modules={"model": model}):
        tracker.say(advice)

`check` stands between the backward pass and the optimiser's step. When it raises Diverged the weights are still those
of the step before; the trainer lets it pass and saves nothing, so that the last checkpoint stays the last good one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop.precision import Precision

LOG_OF_NOTHING = -math.log(1e-30)  # 69.0776: the cross entropy of a probability that was clamped at 1e-30
PATIENCE = 100  # steps in a row that make a symptom a state
STARTED = 2_000  # steps after which a head that learns has turned its centres towards their faces
FLAT_COSINE = 0.05
COLLAPSED = 1e-3
RATE_PER_1024 = 0.1  # of SGD with momentum 0.9 under a margin loss


class Diverged(Exception):
    """The run cannot go on; the message says at which step, why and what to try."""


class Diagnosis:
    """Watches a run's numbers. Keeps counts only; a resumed run may begin with a new one."""

    def __init__(self, triplet_margin: float | None = None) -> None:
        """`triplet_margin` is that of a loss part named "triplet", whose collapse then is looked for."""
        self.triplet_margin = triplet_margin
        self._in_a_row: dict[str, int] = {}
        self._cosine, self._cosines = 0.0, 0
        self._said = False

    def check(
        self,
        step: int,
        losses: Mapping[str, float | Tensor],
        *,
        gradient: float | Tensor = 0.0,
        precision: Precision | None = None,
        target_cosine: float | Tensor | None = None,
        spread: float | Tensor | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        pictures: Tensor | None = None,
    ) -> list[str]:
        """What is worth saying now, each advice once. Raises Diverged.

        `losses` are the parts and their sum, `gradient` the true length of all gradients, `target_cosine` and
        `spread` the functions' below. `modules` and the first one's input `pictures` are looked into only where
        something is not finite. In fp16 a gradient may overflow: that is how the scale is found.
        """
        numbers = {name: float(value) for name, value in losses.items()}
        self._finite(step, numbers, float(gradient), precision or Precision(), modules or {}, pictures)
        self._labels(step, numbers)
        self._collapse(step, numbers, None if spread is None else float(spread))
        return [] if target_cosine is None else self._stuck(step, float(target_cosine))

    def _finite(
        self,
        step: int,
        losses: dict[str, float],
        gradient: float,
        precision: Precision,
        modules: Mapping[str, nn.Module],
        pictures: Tensor | None,
    ) -> None:
        scaled = precision.kind == "fp16"
        if scaled and precision.scale < 1:
            where = not_finite(modules, pictures, precision)  # NaN looks like an overflow, until now
            why = f"overflow or are no numbers (first: {where})" if where else "overflow"
            raise Diverged(
                f"step {step}: fp16's loss scale has fallen to {precision.scale:g}: gradients {why} however they are "
                "scaled; use precision bf16 (or fp32), which needs no scale and names NaN at once"
            )
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if not broken and (math.isfinite(gradient) or scaled):
            return
        what = (
            f"loss {broken[0]} is {losses[broken[0]]}" if broken else f"the gradient's length is {gradient}"
        )
        where = not_finite(modules, pictures, precision)
        raise Diverged(
            f"step {step}: {what}{f'; first not finite: {where}' if where else ''}. Try a lower learning_rate or a "
            "longer warm-up; keep margins and losses in float32, the backbone in bf16 rather than fp16"
        )

    def _labels(self, step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if self._for_steps(f"labels {name}", abs(value - LOG_OF_NOTHING) < 1e-3, 3):
                raise Diverged(
                    f"step {step}: loss {name} stands at {value:.4f} = −ln 1e-30, so no sample's own class is among "
                    "the classes compared: labels beyond the head's identities or outside its shard, or not int64"
                )

    def _collapse(self, step: int, losses: dict[str, float], spread: float | None) -> None:
        triplet = losses.get("triplet")
        if triplet is not None and self.triplet_margin is not None:
            at_margin = abs(triplet - self.triplet_margin) < 1e-3
            if self._for_steps("triplet", at_margin, PATIENCE):
                raise Diverged(
                    f"step {step}: the triplet loss has equalled its margin {self.triplet_margin:g} for {PATIENCE} "
                    "steps: all embeddings have become one. Mine semi-hard negatives instead of the hardest, lower "
                    "the learning_rate, or add an identity loss"
                )
        if spread is not None and self._for_steps("spread", spread < COLLAPSED, PATIENCE):
            raise Diverged(
                f"step {step}: all embeddings of a batch have pointed one way for {PATIENCE} steps (spread "
                f"{spread:.1e}): lower the learning_rate, and look at the pictures that the model is given"
            )

    def _stuck(self, step: int, cosine: float) -> list[str]:
        self._cosines += 1
        self._cosine += (cosine - self._cosine) / min(self._cosines, PATIENCE)
        seen_enough = step >= STARTED and self._cosines >= PATIENCE
        if self._said or not seen_enough or abs(self._cosine) >= FLAT_COSINE:
            return []
        self._said = True
        return [
            f"step {step}: the mean cosine of an embedding to its own centre is still {self._cosine:.3f}: the margin "
            "is too large to begin with; ramp it up from 0 over the first epochs, or lower it"
        ]

    def _for_steps(self, symptom: str, present: bool, steps: int) -> bool:
        self._in_a_row[symptom] = self._in_a_row.get(symptom, 0) + 1 if present else 0
        return self._in_a_row[symptom] >= steps


def rate_advice(optimiser: str, rate: float, batch: int) -> str | None:
    """What to say before the first step about SGD's peak rate at a global batch: 0.1 per 1,024 is what margin losses
    are trained with; more than twice or less than half of it is worth a look. None for other optimisers."""
    usual = RATE_PER_1024 * batch / 1024
    if optimiser.lower() != "sgd" or usual / 2 <= rate <= usual * 2:
        return None
    return (
        f"learning_rate {rate:g} is {rate / usual:.2g} × the usual of SGD under a margin loss at a batch of {batch} "
        f"(0.1 per 1,024, here {usual:.2g}): too high diverges, too low stalls"
    )


@torch.no_grad()
def target_cosine(embedding: Tensor, weight: Tensor, label: Tensor) -> Tensor:
    """The mean cosine of embeddings [n, d] to the centres [classes, d] of their labels int64 [n]: a scalar."""
    return F.cosine_similarity(embedding.float(), weight[label].float()).mean()


@torch.no_grad()
def spread(embedding: Tensor) -> Tensor:
    """1 − the length of the mean direction of [n, d]: 0 where all point one way, near 1 for n ≫ 1 independent ones."""
    return 1 - F.normalize(embedding.float()).mean(0).norm()


@torch.no_grad()
def not_finite(
    modules: Mapping[str, nn.Module], pictures: Tensor | None = None, precision: Precision | None = None
) -> str | None:
    """The first thing that is not finite, or None: a weight; a layer's output for `pictures`, in the order of the
    forward pass through the first module; a gradient, from the output's end, where the backward pass begins."""
    for part, module in modules.items():
        for name, parameter in module.named_parameters():
            if not _finite(parameter):
                return f"{part}.{name}, the weight itself"
    if pictures is not None and modules:
        if not _finite(pictures):
            return "the pictures"
        part, module = next(iter(modules.items()))
        with (precision or Precision()).autocast():
            layer = _first_output(module, pictures)
        if layer:
            return f"{part}.{layer}, its output"
    for part, module in reversed(list(modules.items())):
        for name, parameter in reversed(list(module.named_parameters())):
            if parameter.grad is not None and not _finite(parameter.grad):
                return f"{part}.{name}, its gradient"
    return None


def _first_output(module: nn.Module, pictures: Tensor) -> str | None:
    """The first leaf of `module` whose output is not finite."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(layer: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not _finite(output):
                found.append(f"{name} ({type(layer).__name__})")

        return hook

    leaves = [(name, layer) for name, layer in module.named_modules() if not next(layer.children(), None)]
    hooks = [layer.register_forward_hook(look(name)) for name, layer in leaves]
    try:
        module(pictures)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
