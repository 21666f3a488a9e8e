"""The embedder's run, as a typed configuration."""

from __future__ import annotations

import inspect
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from training.config import BadConfig, RunConfig
from training.data.augment import Augmentation
from training.embedder.backbones import BACKBONES
from training.embedder.margins import MARGINS, margin
from training.loop.optimiser import Optimiser
from training.loop.schedule import Schedule

HINTED = ("mobilefacenet", "mobilefacenet_quick")  # backbones whose blocks are the reference embedder's


class HeadLoss(RunConfig):
    """Margin softmax over the identities; `options` are those of the margin (see margins.py), all of them: the margin's
    own defaults join what is named, so that a run records what it computed with."""

    name: str = "arcface"
    weight: float = Field(0.5, ge=0)
    options: dict[str, float | str] = Field(
        {"scale": 32.0, "margin": 0.3}, validate_default=True
    )  # of arcface; another head begins with its own defaults
    ramp_steps: int = Field(0, ge=0)  # over which the margin grows from 0
    sample_rate: float = Field(1.0, gt=0, le=1)  # of the classes in a step; below 1 it is Partial FC
    least_similarity: float = Field(
        0.25, ge=-1, le=1
    )  # to the own centroid; below, a label is probably wrong

    @model_validator(mode="before")
    @classmethod
    def _of_its_own(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name", "arcface") != "arcface":
            return {"options": {}, **given}
        return given

    @field_validator("options")
    @classmethod
    def _all_of_them(cls, named: dict[str, float | str], info: ValidationInfo) -> dict[str, float | str]:
        chosen = MARGINS.get(info.data.get("name", ""))
        taken = inspect.signature(chosen).parameters if chosen else {}
        return {name: of.default for name, of in taken.items()} | named

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:  # before any data is read
            of = margin(self.name, **self.options)
        except BadConfig as error:
            raise ValueError(str(error)) from error
        if of.label_smoothing and self.sample_rate < 1:
            raise ValueError("label_smoothing spreads over all identities: it needs sample_rate = 1")
        return self


class MetricLosses(RunConfig):
    """Losses on distances within the batch; 0 leaves one out."""

    triplet: float = Field(0.0, ge=0)
    triplet_margin: float = Field(0.2, gt=0, le=4)
    centre: float = Field(0.0, ge=0)
    centre_rate: float = Field(0.5, ge=0, le=1)


class Distillation(RunConfig):
    """What a teacher gives; all weights 0 is training without one."""

    weight: float = Field(20.0, ge=0)  # of 1 − cos to the teacher's embedding
    relational: float = Field(0.0, ge=0)  # of the distances and angles between the faces of a batch
    hint_weight: float = Field(0.5, gt=0)
    hint_steps: int = Field(0, ge=0)  # from the start, with the reference's layers as targets (see hints.py)
    forced_steps: int = Field(0, ge=0)  # the first of them, each layer by itself

    @property
    def used(self) -> bool:
        return self.weight > 0 or self.relational > 0 or self.hint_steps > 0


class Sampling(RunConfig):
    """Which faces a step takes (see data/sampling.py)."""

    name: Literal["shuffled", "balanced", "pk"] = "shuffled"
    balance: float = Field(1.0, ge=0, le=1)  # of `balanced`
    people: int = Field(16, ge=2)  # of `pk`
    pictures: int = Field(4, ge=2)  # of `pk`, a person's

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, options in _TAKEN_BY.items():
            for option in options:
                if name != self.name and getattr(self, option) != type(self).model_fields[option].default:
                    raise ValueError(f'{option} is an option of "{name}", not of "{self.name}"')
        return self


_TAKEN_BY = {"balanced": ("balance",), "pk": ("people", "pictures")}


class EmbedderConfig(RunConfig):
    """Defaults are the recipe of the default bundle; a TOML file overrides what it names."""

    backbone: str = "mobilefacenet"
    dimension: int = Field(128, ge=16, le=1024)
    batch: int = Field(64, ge=2)  # faces a step and process
    micro_batch: int | None = Field(None, ge=2)  # faces that go through at once; None: all of them
    epochs: float = Field(12, gt=0, allow_inf_nan=False)
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule(warmup=200)
    ema: float = Field(0.998, ge=0, lt=1)
    max_gradient_norm: float = Field(20.0, gt=0)
    head: HeadLoss = HeadLoss()
    metric: MetricLosses = MetricLosses()
    distillation: Distillation = Distillation()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    checkpoint_steps: int = Field(100, ge=1)
    evaluate_steps: int = Field(540, ge=1)
    seed: int = Field(7, ge=0, lt=2**63)
    threads: int = Field(1, ge=1)
    workers: int = Field(0, ge=0)  # processes that prepare batches; 0: none beside the training
    compile: bool = True

    @property
    def distilled(self) -> bool:
        return self.distillation.used

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"{name!r} is unknown; known are {', '.join(BACKBONES)}")
        return name

    @model_validator(mode="after")
    def _possible(self) -> Self:
        sampling, distillation = self.sampling, self.distillation
        if self.optimiser.name == "muon":
            raise ValueError(
                'optimiser "muon" is for detectors: class centres learn by adamw or sgd; set either'
            )
        if not (self.head.weight or self.metric.triplet or distillation.weight or distillation.relational):
            raise ValueError(
                "head, triplet and distillation all have weight 0: nothing tells people apart (hints end after "
                "hint_steps, and the centre loss alone draws all faces to one place)"
            )
        if sampling.name == "pk" and self.batch != sampling.people * sampling.pictures:
            raise ValueError(
                f"batch {self.batch} is not people × pictures = {sampling.people} × {sampling.pictures}"
            )
        if self.metric.triplet and sampling.name != "pk":
            raise ValueError('triplets need several pictures of a person in a batch: sampling.name = "pk"')
        if self.metric.triplet and self.fewest <= sampling.pictures:
            raise ValueError(
                f"micro_batch {self.micro_batch} leaves batches of {self.fewest} faces, one person's "
                f"{sampling.pictures}: triplets need two people"
            )
        if self.fewest < (3 if distillation.relational else 2):
            raise ValueError(
                f"micro_batch {self.micro_batch} cuts a batch of {self.batch} down to {self.fewest}: batch "
                "normalisation needs two faces, and relational distillation three"
            )
        if distillation.forced_steps > distillation.hint_steps:
            raise ValueError("forced_steps are the first of hint_steps: not more of them")
        if distillation.hint_steps and self.backbone not in HINTED:
            raise ValueError(
                f"hints are layers of the reference MobileFaceNet: backbone is one of {', '.join(HINTED)}"
            )
        return self

    @property
    def fewest(self) -> int:
        """Faces in the smallest micro-batch of a step."""
        parts = -(-self.batch // (self.micro_batch or self.batch))
        return self.batch // parts
