"""What detectors find in the pictures of a WIDER split, looked at once: kept by the digests of graph and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bundle.decode import Detections
from bundle.folder import digest_of
from bundle.manifest import DetectorSpec
from training.data.widerface import Split, wider
from training.evaluation.finding import Truth, keep, kept, look
from training.export.sessions import LEAST_SCORE, ServedGraph, finder


def looked(
    lookers: Mapping[str, tuple[ServedGraph, DetectorSpec]], root: Path, split: Split, cache: Path
) -> tuple[list[Truth], dict[str, list[Detections]]]:
    """As `training.evaluation.finding.look` over the split of the WIDER set at `root`, from LEAST_SCORE on; who has
    looked before does not look again."""
    pictures = f"{split}-{digest_of_files(root.glob('*.*'))[:16]}"
    files = {name: cache / f"found-{_digest(*of)}-{pictures}.npz" for name, of in lookers.items()}
    new = {name: finder(*lookers[name]) for name, file in files.items() if not file.is_file()}
    truth, found = look(wider(root, split), new)
    for name, of in found.items():
        keep(of, files[name])
    return truth, {name: kept(file) for name, file in files.items()}


def found_alike(one: tuple[ServedGraph, DetectorSpec], other: tuple[ServedGraph, DetectorSpec]) -> bool:
    """Whether the two find the same in any picture, because they are one graph that is read in one way."""
    return _digest(*one) == _digest(*other)


def digest_of_files(files: Iterable[Path]) -> str:
    """Hexadecimal, over the names and contents of those that are files, in any order."""
    lines = sorted(f"{of.name} {digest_of(of)}" for of in files if of.is_file())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(graph: ServedGraph, spec: DetectorSpec) -> str:
    """Of all that changes what is found."""
    how = f"{graph.digest} {spec.anchors.model_dump_json()} {LEAST_SCORE} {spec.nms_iou} {spec.top_k} {spec.near_scale}"
    return hashlib.sha256(how.encode()).hexdigest()[:16]
