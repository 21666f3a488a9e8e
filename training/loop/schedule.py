"""Learning-rate schedules as plain functions of the step, and the typed choice of one.

Each function answers a factor in 0–1 that multiplies the base rate. Step numbers count from 0; `total` is the length of
the run, which the trainer derives from the data and never reads from a configuration.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from training.config import BadConfig, RunConfig

Name = Literal["warmup_stable_decay", "polynomial", "cosine", "cosine_restarts", "steps"]
TAKES: dict[Name, tuple[str, ...]] = {
    "warmup_stable_decay": ("decay",),
    "polynomial": ("power",),
    "cosine": ("floor",),
    "cosine_restarts": ("floor", "cycles", "multiply"),
    "steps": ("milestones", "gamma"),
}


def warmup_stable_decay(step: int, total: int, warmup: int, decay: int) -> float:
    """Factor in 0–1: linear up over `warmup` steps, 1, then linear to 0 over the last `decay` (arXiv 2405.18392).

    The plateau is what lets a run be lengthened after the fact: only the decay depends on `total`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if step > total - decay:
        return max(0.0, (total - step) / max(1, decay))
    return 1.0


def polynomial(step: int, total: int, warmup: int = 0, power: float = 1.0) -> float:
    """Linear up over `warmup`, then (1 − progress) ** `power` to 0 at `total`; a line at power 1."""
    if step < warmup:
        return (step + 1) / warmup
    return (1 - _progress(step, warmup, total)) ** power


def cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Linear up over `warmup`, then half a cosine from 1 to `floor` at `total` and beyond (arXiv 1608.03983)."""
    if step < warmup:
        return (step + 1) / warmup
    return _half_cosine(_progress(step, warmup, total), floor)


def cosine_restarts(step: int, first: float, multiply: int = 2, warmup: int = 0, floor: float = 0.0) -> float:
    """Cosines that start again at 1 (SGDR, arXiv 1608.03983).

    The first cycle lasts `first` steps after the warm-up (which need not be whole), each later one `multiply` times
    the one before.
    """
    if step < warmup:
        return (step + 1) / warmup
    place, length = float(step - warmup), first
    if multiply == 1:
        place %= length
    while place >= length:
        place, length = place - length, length * multiply
    return _half_cosine(place / length, floor)


def steps(step: int, milestones: tuple[int, ...], gamma: float = 0.1, warmup: int = 0) -> float:
    """Linear up over `warmup`, then `gamma` to the power of the milestones that the step has reached."""
    if step < warmup:
        return (step + 1) / warmup
    return gamma ** sum(step >= milestone for milestone in milestones)


def ramp(step: int, over: int) -> float:
    """Linear from 0 at step 0 to 1 at step `over`, and 1 from there: what a margin is multiplied with."""
    return min(1.0, step / over) if over else 1.0


def _progress(step: int, start: int, end: int) -> float:
    return min(1.0, (step - start) / max(1, end - start))


def _half_cosine(progress: float, floor: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


class Schedule(RunConfig):
    """A schedule by name with its own options. Lengths other than the warm-up are shares of the run, so that the same
    configuration means the same on more data. An option of another schedule is refused."""

    name: Name = "warmup_stable_decay"
    warmup: int = Field(0, ge=0)  # steps
    decay: float = Field(0.25, ge=0, le=1)  # share of the run, at its end
    power: float = Field(1.0, gt=0)
    floor: float = Field(0.0, ge=0, lt=1)  # the lowest factor of a cosine
    cycles: int = Field(3, ge=1)  # cosines that fill the run
    multiply: int = Field(2, ge=1)  # how much longer each is than the one before
    milestones: tuple[float, ...] = ()  # shares of the run at which the rate falls
    gamma: float = Field(0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _possible(self) -> Schedule:
        allowed = ("name", "warmup", *TAKES[self.name])
        for name, field in type(self).model_fields.items():
            if name not in allowed and getattr(self, name) != field.default:
                raise ValueError(f"{self.name} takes no `{name}`, only {', '.join(allowed[1:])}")
        if self.name == "steps" and not self.milestones:
            raise ValueError("steps needs `milestones`, for example [0.5, 0.75, 0.9] of the run")
        if any(not 0 < share < 1 for share in self.milestones) or any(
            late <= early for early, late in pairwise(self.milestones)
        ):
            raise ValueError(
                f"milestones are rising shares of the run between 0 and 1, not {list(self.milestones)}"
            )
        return self

    def factor(self, step: int, total: int) -> float:
        """What multiplies the base rate at `step` of a run of `total` steps. Raises BadConfig for a run too short."""
        match self.name:
            case "warmup_stable_decay":
                decay = int(self.decay * total)
                self._has_room(total, after_warmup=decay)
                return warmup_stable_decay(step, total, self.warmup, decay)
            case "polynomial":
                self._has_room(total)
                return polynomial(step, total, self.warmup, self.power)
            case "cosine":
                self._has_room(total)
                return cosine(step, total, self.warmup, self.floor)
            case "cosine_restarts":
                self._has_room(total, after_warmup=self._weights())
                if step >= total:  # the end of the last cycle, not the start of another
                    return self.floor
                first = (total - self.warmup) / self._weights()
                return cosine_restarts(step, first, self.multiply, self.warmup, self.floor)
            case "steps":
                milestones = tuple(round(share * total) for share in self.milestones)
                self._has_room(total, after_warmup=total - milestones[0])
                return steps(step, milestones, self.gamma, self.warmup)

    def _weights(self) -> int:
        """The length of all cycles in units of the first."""
        return sum(self.multiply**cycle for cycle in range(self.cycles))

    def _has_room(self, total: int, after_warmup: int = 1) -> None:
        if self.warmup + after_warmup > total:
            raise BadConfig(
                f"a run of {total} steps has no room for a warm-up of {self.warmup} and the {after_warmup} that "
                f"{self.name} needs after it: lower `warmup` or train longer"
            )
