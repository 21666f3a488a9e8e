"""The embedder on the ladder: its forms are compared on faces of `validation`, by their cosines and by FNMR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import nn

from bundle.sentinel import Sentinel, WrongAnswer
from bundle.sentinel import check as check_sentinel
from training.data.identities import Faces
from training.evaluation.bootstrap import Interval
from training.evaluation.verification import TooFewImpostors
from training.export.difference import fnmr_differences
from training.export.ladder import CANONICAL, FACES, TENTH, Budget, Rung
from training.export.parity import (
    Agreement,
    ParityFailed,
    agreement,
    check_batches,
    check_embedder,
    golden_crops,
)
from training.export.quantize import crops_to_calibrate
from training.export.sessions import ServedGraph, embed_once


class EmbedderBudget(Budget):
    """What a variant of the embedder may cost, and what it must bring, to be served."""

    fmr: float = Field(1e-3, gt=0, lt=1)  # at which FNMR is compared
    fnmr_most: float = Field(1e-3, ge=0, le=1)  # rise of FNMR, upper bound: 0.1 percentage points
    cosine_p1_least: float = Field(0.99, ge=0, le=1)  # to the canonical graph, of all but 1 % of the faces

    def against(self, rung: Rung) -> list[str]:
        reasons = []
        assert isinstance(rung.agreement, Agreement)
        if not rung.agreement.cosine_p1 >= self.cosine_p1_least:
            reasons.append(
                f"cosine {rung.agreement.cosine_p1:.4f} at the 1st percentile, least {self.cosine_p1_least:g}"
            )
        if rung.difference is None:
            reasons.append(f"the faces do not carry FMR {self.fmr:g}, so its cost in FNMR is not known")
        elif not rung.difference.high <= self.fnmr_most:
            reasons.append(
                f"FNMR at FMR {self.fmr:g} may rise by {rung.difference.high:.3%} (upper bound), most "
                f"{self.fnmr_most:.3%}"
            )
        return reasons


@dataclass(frozen=True)
class EmbedderForms:
    """module: the trained model as exported; faces: of the validation split, to compare on and to calibrate int8 with;
    cache: for their embeddings."""

    module: nn.Module
    canonical: ServedGraph
    sentinel: Sentinel
    faces: Faces
    fmr: float
    cache: Path
    told = FACES

    def against_model(self) -> Agreement:
        return check_embedder(self.module, self.canonical, self.faces.crops()[::TENTH])

    def pictures(self, count: int) -> np.ndarray:
        return crops_to_calibrate(self.faces, count)

    def one(self) -> np.ndarray:
        return golden_crops()[-1:]

    def compared(self, graphs: Mapping[str, ServedGraph]) -> Mapping[str, tuple[Agreement, Interval | None]]:
        answers = {
            kind: embed_once(graph, self.faces.crops(), self.cache, f"{kind}, validation")
            for kind, graph in graphs.items()
        }
        differences = self._differences(answers)
        every = {
            kind: np.concatenate([graph.embed(golden_crops()), answers[kind]])
            for kind, graph in graphs.items()
        }
        return {kind: (agreement(every[CANONICAL], of), differences.get(kind)) for kind, of in every.items()}

    def faults(self, graph: ServedGraph) -> list[str]:
        try:
            check_batches(graph, graph.embed(golden_crops()))
            check_sentinel(self.sentinel, lambda crops: graph.run(crops)[0])
        except (ParityFailed, WrongAnswer) as error:
            return [str(error)]
        return []

    def _differences(self, answers: Mapping[str, np.ndarray]) -> dict[str, Interval]:
        """Of each sound form to the canonical one, by kind; empty where the faces do not carry the rate."""
        sound = [kind for kind, of in answers.items() if kind != CANONICAL and np.isfinite(of).all()]
        base, faces = answers[CANONICAL], self.faces
        try:
            found = fnmr_differences(
                [answers[kind] for kind in sound], base, faces.identity, faces.family, self.fmr
            )
        except TooFewImpostors:
            return {}
        return dict(zip(sound, found, strict=True))
