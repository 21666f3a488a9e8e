"""A learning rate by experiment: the rate rises exponentially, and the loss says where it still helps.

The range test of arXiv 1506.01186. The caller's `step` trains one batch at the given rate, and the caller puts its
model and optimiser back afterwards.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.config import BadConfig
from training.loop.agreement import by_the_first
from training.loop.checkpoint import replacing
from training.loop.diagnosis import Diverged
from training.loop.distributed import World

SMOOTHING = 0.9
DIVERGED = 4.0  # times the best smoothed loss
FEWEST = 10  # losses without which a curve says nothing


@dataclass(frozen=True)
class Finding:
    """The sweep: rates and smoothed losses [n], and the rate to train with at the peak of the schedule."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    steepest: float  # where the loss fell fastest, per decade of the rate
    lowest: float  # where the loss was lowest: already too high to train with
    suggestion: float  # the steepest, but at most a tenth of the lowest's


def find(step: Callable[[float], float], low: float = 1e-6, high: float = 1.0, steps: int = 100) -> Finding:
    """Call `step(rate)`, which answers its loss, at `steps` rates from `low` to `high`.

    Ends early where the smoothed loss reaches four times its best or is no number. Raises BadConfig for a range
    without a way, or one in which the loss never fell.
    """
    if not 0 < low < high or steps < FEWEST:
        raise BadConfig(
            f"a sweep needs 0 < low < high and at least {FEWEST} steps, not {low:g}, {high:g}, {steps}"
        )
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for index in range(steps):
        rate = low * (high / low) ** (index / (steps - 1))
        loss = step(rate)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (index + 1))  # without the bias of beginning at 0
        if not math.isfinite(smoothed):
            break
        rates.append(rate)
        losses.append(smoothed)
        if smoothed > DIVERGED * min(losses):
            break
    if len(losses) < FEWEST:
        raise BadConfig(
            f"the loss left all bounds after {len(losses)} steps, from a rate of {low:g}: lower `low`"
        )
    return _read(rates, losses)


def _read(rates: list[float], losses: list[float]) -> Finding:
    lowest = int(np.argmin(losses))
    if lowest == 0:
        raise BadConfig(f"the loss fell at no rate from {rates[0]:g} to {rates[-1]:g}: lower `low`")
    slope = np.gradient(np.array(losses), np.log10(rates))
    steepest = int(np.argmin(slope[: lowest + 1]))
    return Finding(
        tuple(rates),
        tuple(losses),
        steepest=rates[steepest],
        lowest=rates[lowest],
        suggestion=min(rates[steepest], rates[lowest] / 10),
    )


def sweep(step: Callable[[float], float], drawing: Path, world: World, steps: int = 100) -> float:
    """`find` from 1e-5 to 1, drawn into `drawing` (PNG) by the first rank. Returns the suggestion.

    Where `step` raises Diverged, the sweep has its end.
    """

    def finite(rate: float) -> float:
        try:
            return step(rate)
        except Diverged:
            return math.nan

    def draw() -> None:
        with replacing(drawing) as file:
            file.write(finder_figure(finding))

    finding = find(finite, 1e-5, 1.0, steps)
    by_the_first(draw, world)
    return finding.suggestion


def finder_figure(finding: Finding) -> bytes:
    """The sweep and its suggestion as a PNG."""
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(finding.rates, finding.losses, color="#1f5fa8")
    axes.axvline(finding.suggestion, color="#c8641e", label=f"suggested: {finding.suggestion:.1e}")
    axes.axvline(finding.lowest, color="grey", linestyle=":", label=f"lowest loss: {finding.lowest:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title="rate finder")
    axes.grid(alpha=0.3)
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90, metadata={"Software": None})
    return data.getvalue()
