"""From what a bundle was made: data, commit, configurations and command, enough to make it again."""

from __future__ import annotations

import subprocess

from bundle.manifest import Provenance
from training.config import REPOSITORY
from training.export.measure import dataset_digests
from training.licence import Detector, Embedder
from training.order import Order


def provenance(order: Order, embedder: Embedder, detector: Detector) -> Provenance:
    """As the manifest keeps it."""
    return Provenance(
        datasets=dataset_digests(order.data),
        commit=commit(),
        configs={"embedder": embedder.provenance(), "detector": detector.provenance()},
        command=order.command,
    )


def commit() -> str:
    """The working tree's commit, with "+changes" where files differ from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--verify", "HEAD")
    return (head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")) or "unknown"
