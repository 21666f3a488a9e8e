"""Everything measured for one bundle, and what the bundle is: what the report and the manifest are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.evaluation.ablations import Ablation
from training.evaluation.aligned import Aligned
from training.evaluation.bootstrap import Interval
from training.evaluation.detectors import DetectorResults
from training.evaluation.floors import Verdict
from training.evaluation.recognition import Overlap, Recognition
from training.evaluation.recorded import RecordedDetection
from training.loop.lineage import Lineage
from training.loop.records import AnyRecord


@dataclass(frozen=True)
class Results:
    """Everything measured for one bundle; of recognition ours is the first, the reference the second."""

    recognition: Sequence[Recognition]
    fnmr_ratio: Mapping[float, Interval] | None  # ours over the reference's, by FMR
    detection: DetectorResults | RecordedDetection
    parity: Mapping[str, Mapping[str, float]]
    verdicts: Sequence[Verdict]
    alike: int  # training photographs that look like a validation photograph, of the detector's sets
    lfw_measured: int = 1  # graphs of ours, this one included; 0 without LFW
    promise: Mapping[str, Any] | None = None  # what `calibration_report` found
    overlap: Overlap | None = None  # of the evaluation sets with the training set; None: not assessed
    ablations: Sequence[Ablation] = ()  # other trainings: less data, no teacher
    aligned: Aligned | None = None  # what the detector's points cost recognition; None: not measured now

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        ratio = {f"fnmr_ratio@fmr={f:g}": vars(of) for f, of in (self.fnmr_ratio or {}).items()}
        return {
            "recognition": {**{of.name: of.metrics() for of in self.recognition}, **ratio},
            "detection": self.detection.metrics() | self._aligned(),
            "parity": {name: dict(of) for name, of in self.parity.items()},
            "floors": {
                v.floor: {"asked": v.asked, "measured": v.measured, "holds": v.holds} for v in self.verdicts
            },
            "training_photographs_like_validation": float(self.alike),
            "lfw_measured_graphs": float(self.lfw_measured),
            "calibration": dict(self.promise or {}),
            "overlap": self.overlap.metrics() if self.overlap else {},
            "ablations": {of.name: of.model_dump(exclude={"name"}) for of in self.ablations},
        }

    def _aligned(self) -> dict[str, object]:
        """Among the detector's, so that whoever takes it over carries it along."""
        return {"good_enough_to_align_by": self.aligned.metrics()} if self.aligned else {}


@dataclass(frozen=True)
class About:
    """What the bundle is and how it was made."""

    model_id: str
    created: str
    synthetic: bool
    distilled: bool  # by the reference embedder, which has seen people of LFW
    licence: str
    commit: str
    command: str
    datasets: Sequence[str]
    steps: Mapping[str, int]
    figures: Mapping[str, str]  # file → caption
    lineage: Lineage = ()  # of the embedder
    records: Mapping[str, Sequence[AnyRecord]] = field(default_factory=dict)  # what each model learnt from
    sets: Mapping[str, str] = field(default_factory=dict)  # measured and calibrated with → their terms
    embedder: str = "MobileFaceNet"
    detector: str = "slim ResNet RetinaNet"
