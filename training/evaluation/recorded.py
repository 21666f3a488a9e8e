"""What a bundle's manifest and report say of its detector, for the report of a bundle that takes the detector over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.evaluation.bootstrap import Interval
from training.evaluation.detectors import OURS
from training.evaluation.finding import HEIGHT_LEAST
from training.evaluation.scales import VGA

AP_LESS = "average_precision_less_reference"  # in `metrics["detection"]`
TAKEN_OVER = "taken_over"  # in `metrics["detection"]`: from which bundle, and the sha256 of the graph


@dataclass(frozen=True)
class RecordedDetection:
    """A detector's figures, measured when another bundle was published.

    origin: that bundle's id; sha256: of the canonical graph; recall: of the claim's faces at one false positive a
    picture, 0–1; figures: `metrics["detection"]` of the manifest; differences: of AP to the reference's, by scale and
    setting; told: what stands below `## Detection` in REPORT.md.
    """

    origin: str
    sha256: str
    recall: float
    figures: Mapping[str, Any]
    told: str
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)

    @staticmethod
    def of(model_id: str, sha256: str, figures: Mapping[str, Any], report: str) -> RecordedDetection:
        """From what the bundle `model_id` recorded, which may have taken its detector over from another one itself.

        report: its REPORT.md. Raises KeyError, TypeError or ValueError where the figures are not what publishing
        writes.
        """
        recall = float(figures[OURS]["recall@1fp"])
        if not 0 <= recall <= 1:
            raise ValueError(f"a recall of {recall}")
        less = {
            scale: {setting: Interval(**row) for setting, row in by.items()}
            for scale, by in figures.get(AP_LESS, {}).items()
        }
        told = f"\n{report}".partition("\n## Detection\n")[2].partition("\n## ")[0].strip()
        if earlier := figures.get(TAKEN_OVER):  # its report says so already
            return RecordedDetection(str(earlier["from"]), sha256, recall, figures, told, less)
        taken = (
            f"**Taken over** from {model_id} (sha256 {sha256}), byte for byte, and measured when that was published: "
            "nothing of it was measured anew."
        )
        told = f"{taken} What follows is that bundle's report.\n\n{told}" if told else taken
        return RecordedDetection(model_id, sha256, recall, figures, told, less)

    @property
    def source(self) -> str:
        """The bundle in which the graph was measured, in words."""
        return f"{self.origin} (sha256 {self.sha256})"

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it: as it was kept, and where it is from."""
        return {**self.figures, TAKEN_OVER: {"from": self.origin, "sha256": self.sha256}}

    def summary(self) -> str:
        """What a reader who reads nothing else should know of the detector."""
        return (
            f"detector: taken over from {self.source}, measured when that was published: finds {self.recall:.2%} of "
            f"the faces of at least {HEIGHT_LEAST:.0f} pixels at one false positive a picture ({VGA.name})"
        )
