"""The detector's run, as a typed configuration."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bundle.decode import AnchorLayout
from training.config import BadConfig, RunConfig
from training.detector.backbones import BACKBONES, options_of
from training.detector.losses import BoxLoss
from training.loop.optimiser import Optimiser
from training.loop.schedule import Schedule

TEACHER_STRIDES = (8, 16, 32)

# Where the keys of configurations before this one stand now; None: no longer.
FLAT: dict[str, tuple[str, str] | None] = {
    "widths": ("backbone", "widths"),
    "depths": ("backbone", "depths"),
    "stem": ("backbone", "stem"),
    "learning_rate": ("optimiser", "learning_rate"),
    "weight_decay": ("optimiser", "weight_decay"),
    "warmup_steps": ("schedule", "warmup"),
    "decay_share": ("schedule", "decay"),
    "positive_iou": ("assignment", "positive_iou"),
    "negative_iou": ("assignment", "negative_iou"),
    "box_weight": ("losses", "box_weight"),
    "landmark_weight": ("losses", "landmark_weight"),
    "labels_weight": ("losses", "weight"),
    "dense_weight": ("teacher", "weight"),
    "hint_weight": ("teacher", "hint_weight"),
    "hint_steps": ("teacher", "hint_steps"),
    "forced_steps": ("teacher", "forced_steps"),
    "teacher_layers": ("teacher", "layers"),
    "checkpoint_minutes": None,
}


class Backbone(RunConfig):
    """By name (see backbones/), with its own options; an option of another backbone is refused."""

    name: str = "resnet"
    widths: tuple[int, int, int, int] = (16, 48, 80, 112)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    stem: int | None = Field(
        None, ge=8
    )  # channels after the first convolution; those of the first stage where None
    width: float = Field(1.0, gt=0, le=1)  # share of the published channels

    def __str__(self) -> str:
        """Such as "resnet 16-48-80-112", "mobilenet × 0.25"."""
        taken = self.options
        if "widths" in taken:
            return f"{self.name} {'-'.join(map(str, self.widths))}"
        return f"{self.name} × {self.width:g}" if taken and self.width != 1 else self.name

    @property
    def options(self) -> dict[str, Any]:
        """Those that this backbone takes."""
        return {name: getattr(self, name) for name in options_of(self.name)}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.name not in BACKBONES:
            raise ValueError(f"backbone {self.name!r} is unknown; known are {', '.join(BACKBONES)}")
        for name, field in type(self).model_fields.items():
            if name not in ("name", *self.options) and getattr(self, name) != field.default:
                taken = ", ".join(self.options) or "nothing else"
                raise ValueError(f"{self.name} takes no `{name}`, only {taken}")
        if min(*self.widths, *self.depths) < 1:
            raise ValueError("widths and depths are positive")
        return self


class Assignment(RunConfig):
    """Which anchor learns which face (see matching.py)."""

    name: Literal["iou", "atss"] = "iou"
    positive_iou: float = Field(0.35, gt=0, lt=1)  # of `iou`
    negative_iou: float = Field(0.28, gt=0, lt=1)
    nearest: int = Field(9, ge=2)  # of `atss`: cells of each level


class Losses(RunConfig):
    """Against what people boxed."""

    weight: float = Field(1.0, ge=0)  # of all three
    score: Literal["focal", "ohem"] = "focal"
    box: BoxLoss = "diou"
    box_weight: float = Field(2.0, ge=0)  # of labels and teacher alike
    landmark_weight: float = Field(0.5, ge=0)


class DenseTeaching(RunConfig):
    """What a dense teacher gives, where a run has one (see teacher.py)."""

    weight: float = Field(1.0, ge=0)  # of its scores, boxes and points
    layers: tuple[str, ...] = ()  # tensors of its graph, the targets of our strides 8, 16 and 32
    hint_weight: float = Field(0.5, ge=0)
    hint_steps: int = Field(0, ge=0)  # from the start, with the teacher's layers as targets
    forced_steps: int = Field(0, ge=0)  # the first of them, each stage by itself

    @property
    def asked(self) -> bool:
        """Whether the teacher has a part in the loss."""
        return self.weight > 0 or (self.hint_steps > 0 and self.hint_weight > 0)


class Augmentation(RunConfig):
    """What is done to crops beyond what always is (see data/detection_augment.py); probabilities."""

    mosaics: float = Field(0.0, ge=0, le=1)  # four photographs share a crop
    hiding: float = Field(0.0, ge=0, le=1)  # something is in front of a face
    turning: float = Field(0.0, ge=0, le=1)  # widely: a head that lies, a camera that hangs askew
    degrading: float = Field(
        0.0, ge=0, le=1
    )  # dark, shaken or hazy, and the teacher is asked about the clear crop


class DetectorConfig(RunConfig):
    """A TOML file overrides what it names; the default bundle's is `training/configs/detector.toml`.

    The flat keys of earlier configurations (see FLAT) are read too: checkpoints hold them.
    """

    backbone: Backbone = Backbone()
    pyramid: int = Field(48, ge=8, multiple_of=4)  # channels
    anchors: AnchorLayout = AnchorLayout()  # its strides choose the pyramid's levels
    head: tuple[int, ...] = ()  # channels of each convolution before a level's output
    context: bool = True  # of 5 × 5 and 7 × 7 cells of a level, before the head
    sides: tuple[int, ...] = (320,)  # of a training crop, pixels; each step takes one of them
    batch: int = Field(32, ge=1)  # crops a step and process
    micro_batch: int | None = Field(None, ge=1)  # crops that go through at once; None: all of them
    epochs: float = Field(100, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule(warmup=300, decay=0.3)
    ema: float = Field(0.998, ge=0, lt=1)
    max_gradient_norm: float = Field(10.0, gt=0)
    assignment: Assignment = Assignment()
    losses: Losses = Losses()
    teacher: DenseTeaching = DenseTeaching()
    augmentation: Augmentation = Augmentation()
    longest: int = Field(800, ge=64)  # of a cached training picture, pixels
    encoded: bool = False  # training pictures stay JPEG in a file: slower, for sets that memory does not hold
    checkpoint_steps: int = Field(50, ge=1)
    evaluate_epochs: float = Field(10.0, gt=0)
    seed: int = Field(7, ge=0)
    threads: int = Field(1, ge=1)
    workers: int = Field(0, ge=0)  # processes that prepare batches; 0: none beside the training
    compile: bool = True

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        return nested(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        strides = self.anchors.strides
        if strides[0] < 4 or strides[-1] > 128 or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"levels are strides from 4 to 128, each twice the one before, not {strides}")
        if strides[0] > 32:
            raise ValueError("the finest level is at most of stride 32, the backbone's last")
        if not self.sides or any(side < 32 or side % strides[-1] for side in self.sides):
            raise ValueError(f"sides are multiples of the coarsest stride {strides[-1]}, not {self.sides}")
        if self.assignment.negative_iou > self.assignment.positive_iou:
            raise ValueError("negative_iou is not above positive_iou")
        if self.losses.weight == self.teacher.weight == 0:
            raise ValueError("every loss has weight 0: nothing would be learnt")
        if self.teacher.forced_steps > self.teacher.hint_steps:
            raise ValueError("forced_steps are the first of hint_steps: not more of them")
        if self.teacher.hint_steps and (len(self.teacher.layers) != 3 or strides != TEACHER_STRIDES):
            raise ValueError("hint_steps need three teacher.layers, and anchors of strides 8, 16 and 32")
        return self

    def alone(self) -> DetectorConfig:
        """The same without a dense teacher. Raises BadConfig where nothing would be left to learn."""
        if not self.losses.weight:
            raise BadConfig(
                "losses.weight = 0 leaves the labels out: give a dense teacher, or nothing is learnt"
            )
        return self.model_copy(update={"teacher": DenseTeaching(weight=0)})


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with flat keys as one of sections; what is not flat stays as it is."""
    found = {key: value for key, value in values.items() if key not in FLAT and key != "side"}
    for key, value in values.items():
        place = FLAT.get(key)
        if place:
            section, name = place
            default = DetectorConfig.model_fields[section].default
            found[section] = {**dict(found.get(section, default)), name: value}
    if "side" in values:
        found["sides"] = (values["side"],)
    return found
