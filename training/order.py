"""What to publish, from what, and where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from training.evaluation.floors import Floors
from training.gates import Policy, standing_policy


@dataclass(frozen=True)
class Order:
    """`work` keeps graphs, caches, overlays and outcome.json."""

    embedder: Path  # a checkpoint
    detector: Path  # a checkpoint, or a published bundle's folder: its detector is taken over as it is
    data: Path
    to: Path
    work: Path
    floors: Floors
    command: str
    synthetic: bool = False
    name: str = ""  # of the bundle; the folder's where empty
    version: str = ""  # the day's date where empty
    threads: int = 1
    policy: Policy | None = None  # of the gates; where None the repository's, for real or for drawn data
    without_faces: Path | None = None  # pictures on which every face that is found is false
    first: bool = False  # not compared with the bundle that is there, whatever its name

    @property
    def bundle(self) -> str:
        """The bundle's name."""
        return self.name or self.to.name

    @property
    def standing(self) -> Policy:
        """The gates' policy. Raises BadConfig."""
        return self.policy or standing_policy(self.synthetic)

    def dated(self, created: datetime) -> str:
        """The bundle's version."""
        return self.version or f"{created:%Y.%m.%d}"
