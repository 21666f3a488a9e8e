"""The detector on the ladder: its forms are compared on the selection pictures, which were held out of training and are
not the claim's, by the faces they find and by recall; int8 is calibrated on training photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import nn

from bundle.manifest import DetectorSpec
from bundle.preprocess import letterbox
from training.data.widerface import wider
from training.evaluation.bootstrap import Interval
from training.export.difference import TooFewPictures, recall_differences
from training.export.ladder import CANONICAL, PICTURES, TENTH, Budget, Rung
from training.export.looks import looked
from training.export.parity import (
    FoundAgreement,
    ParityFailed,
    check_detector,
    check_detector_batches,
    found_agreement,
    golden_scenes,
)
from training.export.quantize import windows_to_calibrate
from training.export.sessions import ServedGraph

SMALLEST = 8.0  # pixels, of a face that counts: what a form loses first are the small ones


class DetectorBudget(Budget):
    """What a variant of the detector may cost, and what it must bring, to be served."""

    recall_most: float = Field(5e-3, ge=0, le=1)  # loss at one false positive a picture, upper bound
    points_p99_most: float = Field(
        0.03, ge=0
    )  # a landmark's way over the face's size, of all but 1 % of the faces

    def against(self, rung: Rung) -> list[str]:
        reasons = []
        assert isinstance(rung.agreement, FoundAgreement)
        if not rung.agreement.points_p99 <= self.points_p99_most:
            reasons.append(
                f"landmarks move by {rung.agreement.points_p99:.1%} of a face at the 99th percentile, most "
                f"{self.points_p99_most:.1%}"
            )
        if rung.difference is None:
            reasons.append("the pictures carry no interval of recall, so its cost is not known")
        elif not -rung.difference.low <= self.recall_most:
            reasons.append(
                f"recall at 1 false positive a picture may fall by {-rung.difference.low:.3%} (upper bound), most "
                f"{self.recall_most:.3%}"
            )
        return reasons


@dataclass(frozen=True)
class DetectorForms:
    """module: the trained model as exported; root: of the WIDER set; cache: for what was found there."""

    module: nn.Module
    canonical: ServedGraph
    spec: DetectorSpec
    root: Path
    cache: Path
    told = PICTURES

    def against_model(self) -> FoundAgreement:
        some = [
            letterbox(of.pixels, self.spec.canvases[0])[0]
            for of in islice(wider(self.root, "selection"), 0, None, TENTH)
        ]
        return check_detector(self.module, self.canonical, self.spec, np.stack(some) if some else None)

    def pictures(self, count: int) -> np.ndarray:
        return windows_to_calibrate(self.root, count)

    def one(self) -> np.ndarray:
        return golden_scenes(*self.spec.canvases[0])[-1:]

    def compared(
        self, graphs: Mapping[str, ServedGraph]
    ) -> Mapping[str, tuple[FoundAgreement, Interval | None]]:
        lookers = {kind: (graph, self.spec) for kind, graph in graphs.items()}
        truth, found = looked(lookers, self.root, "selection", self.cache)
        try:
            scenes = [of.scene(SMALLEST) for of in truth]
            each = recall_differences(list(found.values()), found[CANONICAL], scenes)
            differences = dict(zip(found, each, strict=True))
        except TooFewPictures:
            differences = {}
        return {
            kind: (found_agreement(found[CANONICAL], of), differences.get(kind)) for kind, of in found.items()
        }

    def faults(self, graph: ServedGraph) -> list[str]:
        try:
            check_detector_batches(graph, self.spec.canvases[0])
        except ParityFailed as error:
            return [str(error)]
        return []
