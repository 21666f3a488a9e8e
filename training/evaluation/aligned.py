"""What a detector's points cost recognition, as the verb `landmarks` measured it; in a file beside the runs, for the
report of the bundle that the detector is published in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError
from scipy.stats import t

from training.config import RunConfig, wrong_values
from training.data.identities import BadData
from training.evaluation.bootstrap import Interval
from training.evaluation.detectors import OURS

FILE = "landmarks.json"


class Through(RunConfig):
    """Verification through one detector.

    missed: photographs of `photographs` without a face; their pairs count as similarity −1. accuracy: over the folds,
    0–1, with its standard error. mated: mean cosine of the mated pairs whose two faces were found. less: the accuracy
    less the first detector's on the same folds, 0–1, with the standard error of that; None for the first.
    sha256, embedder: of the detector's graph, and of the embedder's; pairs: which, in words; empty in older files.
    """

    name: str
    photographs: int = Field(ge=0)
    missed: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)
    error: float
    mated: float
    less: tuple[float, float] | None
    folds: int = Field(10, ge=2)
    sha256: str = ""
    embedder: str = ""
    pairs: str = ""

    def __str__(self) -> str:
        told = f"{self.name}: {self.accuracy:.2%} ± {self.error:.2%}, mated similarity {self.mated:.3f}, no face in "
        told += f"{self.missed} of {self.photographs}"
        if less := self.less_interval:
            value, low, high = (f"{100 * of:+.2f}" for of in (less.value, less.low, less.high))
            told += f"; {value} points ({low} to {high}) against the first"
        return told

    @property
    def less_interval(self) -> Interval | None:
        """`less` with its 95 % by Student's t over the folds."""
        if self.less is None:
            return None
        value, error = self.less
        reach = float(t.ppf(0.975, self.folds - 1)) * error
        return Interval(value, value - reach, value + reach)


@dataclass(frozen=True)
class Aligned:
    """Verification through a detector, and through the reference beside it."""

    ours: Through
    reference: Through

    @property
    def less(self) -> Interval:
        """Our accuracy less the reference's."""
        less = self.ours.less_interval
        assert less is not None
        return less

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it; ours is called by its path on some machine, which stays out."""
        kept = {
            OURS: self.ours.model_dump(mode="json", exclude={"name", "less"}),
            "reference": self.reference.model_dump(mode="json", exclude={"less"}),
        }
        return {**kept, "accuracy_less_reference": vars(self.less)}


_LIST = TypeAdapter(tuple[Through, ...])


def read_aligned(file: Path, sha256: str) -> Aligned | None:
    """What `write_aligned` wrote of the detector's graph of that digest; None where it was not measured, or there is no
    file. Raises BadData for a file that is something else."""
    if not file.is_file():
        return None
    try:
        first, *others = _LIST.validate_json(file.read_bytes()) or (None,)
    except ValidationError as error:
        raise BadData(
            f"{file}: not what `python -m training landmarks` writes ({wrong_values(error)}); run that anew, or "
            "remove the file"
        ) from error
    ours = [of for of in others if of.sha256 == sha256 and of.less is not None]
    return Aligned(ours[0], first) if first and ours else None


def write_aligned(file: Path, measured: Sequence[Through]) -> None:
    """Replace `file` as a whole; the first is the reference."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([of.model_dump(mode="json") for of in measured], indent=2) + "\n")
    partial.replace(file)
