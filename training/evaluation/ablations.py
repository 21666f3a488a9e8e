"""What other trainings of the embedder gave: less data, no teacher. Kept in a file beside the runs, for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.data.identities import BadData, Faces
from training.evaluation.bootstrap import Interval, fnmr_intervals

FILE = "ablations.json"
FMR = 1e-3


class Ablation(BaseModel):
    """One training: on how much, how long, with a teacher or not; and what it gave.

    fnmr: at FMR 1e-3 over all pairs of validation. lfw, lfw_error: accuracy over LFW's folds, 0–1, and its standard
    error; None where that was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    identities: int = Field(ge=2)
    faces: int = Field(ge=2)
    steps: int = Field(ge=0)
    distilled: bool
    fnmr: Interval
    lfw: float | None = Field(None, ge=0, le=1)
    lfw_error: float | None = Field(None, ge=0)

    @staticmethod
    def measured(
        name: str,
        embedding: np.ndarray,
        validation: Faces,
        *,
        identities: int,
        faces: int,
        steps: int,
        distilled: bool,
        lfw: tuple[float, float] | None = None,
    ) -> Ablation:
        """embedding: float32 [n, d] unit vectors of `validation.crops()`, no flip; lfw: what `ten_folds` answers for
        the same model. Raises TooFewImpostors."""
        (rates,), _ = fnmr_intervals([embedding], validation.identity, validation.family, (FMR,))
        return Ablation(
            name=name,
            identities=identities,
            faces=faces,
            steps=steps,
            distilled=distilled,
            fnmr=rates[FMR],
            lfw=lfw[0] if lfw else None,
            lfw_error=lfw[1] if lfw else None,
        )


_LIST = TypeAdapter(tuple[Ablation, ...])


def read_ablations(file: Path) -> tuple[Ablation, ...]:
    """What `write_ablations` wrote; nothing where the file is absent. Raises BadData for a file that is something
    else."""
    if not file.is_file():
        return ()
    try:
        return _LIST.validate_json(file.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BadData(
            f"{file}: not a list of trainings and what they gave ({wrong}); correct or remove it"
        ) from error


def write_ablations(file: Path, ablations: Sequence[Ablation]) -> None:
    """Replace `file` as a whole, so that it is never half written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([of.model_dump() for of in ablations], indent=2) + "\n")
    partial.replace(file)
