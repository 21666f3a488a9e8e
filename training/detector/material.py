"""What a run learns from: sets of photographs in any format, who labelled them, and which are held out for selection.

A tenth of the boxed pictures, by name, selects; pictures that nobody boxed teach what a dense teacher says of them.
None may look like a picture that the detector is measured with in the end, whatever set it comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.folder import digest_of
from training.config import BadConfig
from training.data.annotations.entries import Annotations, Entry
from training.data.annotations.folders import ROOMS
from training.data.annotations.intake import TOLERATED, photographs
from training.data.annotations.sources import open_annotations
from training.data.annotations.terms import terms_of
from training.data.jpeg_cache import cached
from training.data.likeness import Looks
from training.data.photographs import Photograph, unboxed
from training.data.pictures import SUFFIXES, BadData
from training.data.teacher_landmarks import lent, teach
from training.data.widerface import held_out, masks, wider
from training.detector.dataset import Photographs, keep
from training.loop.memory import free_memory
from training.loop.records import Record

MEASURED = ("val/", "test/")  # pictures of such names in a set with splits are never trained on
HALVES = 4 / 3  # of a picture's bytes: with its halved copies


def _none() -> Iterator[Photograph]:
    return iter(())


@dataclass(frozen=True)
class Source:
    """A set. read: its training pictures; chosen: those held out; files: which change when the set does."""

    path: Path
    labels: str
    files: tuple[Path, ...]
    read: Callable[[], Iterator[Photograph]]
    chosen: Callable[[], Iterator[Photograph]] = _none

    @property
    def name(self) -> str:
        """Of its folder; of the one above where that is called as in every set."""
        folder = self.path.resolve() if self.path.is_dir() else self.path.resolve().parent
        return folder.parent.name if folder.name.lower() in ROOMS else folder.name

    def key(self, longest: int) -> str:
        """12 hexadecimal digits that change with the set, who labelled it and the size of its pictures."""
        return _key([longest, self.labels], self.files)

    def record(self, of: Sequence[Photograph], left_out: int | None = None) -> Record:
        names = "\n".join(sorted(one.name for one in of))
        return Record(
            name=self.name,
            pictures=len(of),
            faces=sum(int((~one.ignored).sum()) for one in of),
            names=hashlib.sha256(names.encode()).hexdigest(),
            labels=self.labels,
            terms=terms_of(self.path),
            left_out=left_out,
        )


def own(datasets: Path, landmarks: Path, longest: int, dense: str = "") -> list[Source]:
    """The data sets' WIDER FACE and mask photographs, their points taught and kept in `landmarks` (npz).

    dense: the teacher that is asked about every picture, in words.
    """
    yunet = datasets / "reference" / "yunet_n_dynamic.onnx"
    digest = f" sha256:{digest_of(yunet)}" if yunet.is_file() else ""
    drawn = (datasets / "drawn.json").is_file()
    by = "drawn with their points" if drawn else f"points by {yunet.name}{digest} where it agrees"
    labels, taught = _labels(f"official, {by}", dense), teach(datasets, landmarks)

    def files(root: Path) -> tuple[Path, ...]:
        return (*sorted(of for of in root.glob("*.*") if of.is_file()), landmarks)

    def scenes() -> Iterator[Photograph]:
        return lent(wider(root, "train", longest), taught, landmarks)

    def masked() -> Iterator[Photograph]:
        return lent(masks(others, longest), taught, landmarks)

    root, others = datasets / "wider", datasets / "masks"
    return [
        Source(root, labels, files(root), scenes, partial(wider, root, "selection")),
        Source(others, labels, files(others), masked),
    ]


def boxed(
    path: Path,
    longest: int,
    dense: str = "",
    *,
    pictures: Path | None = None,
    faces: Sequence[str] | None = None,
) -> Source:
    """The boxed photographs of the set at `path`, in any format (see data/annotations), a tenth of them held out.

    Raises BadData as `open_annotations` does.
    """
    of = open_annotations(path, pictures, faces)
    entries = [one for one in of.entries if not one.name.startswith(MEASURED)]
    if len(entries) < len(of.entries):
        left = len(of.entries) - len(entries)
        tqdm.write(
            f"{path}: {left:,} pictures of {' and '.join(MEASURED)} take no part: they are to measure with"
        )
    of = replace(of, entries=tuple(entries))
    by = f"official ({of.form})" + (f", points by {of.points}" if of.points else "")
    files = tuple(sorted({path, *(one.place[0] for one in entries)}))
    some = partial(_some, of, longest)
    return Source(path, _labels(by, dense), files, partial(some, chosen=False), partial(some, chosen=True))


def _some(of: Annotations, longest: int, *, chosen: bool) -> Iterator[Photograph]:
    """The tenth that is held out, or the others; the share that may be unusable is of them all."""
    entries: list[Entry] = [one for one in of.entries if held_out(one.name) == chosen]
    tolerated = TOLERATED * len(of.entries) / max(1, len(entries))
    findings = () if chosen else of.findings  # said once
    return photographs(replace(of, entries=tuple(entries), findings=findings), longest, tolerated)


def bare(folder: Path, longest: int, dense: str) -> Source:
    """The pictures below `folder`, which nobody boxed, for the dense teacher."""
    files = tuple(sorted(of for of in folder.rglob("*") if of.suffix.lower() in SUFFIXES))
    return Source(folder, f"pseudo, by {dense}", files, partial(unboxed, folder, longest))


def _labels(by: str, dense: str) -> str:
    return f"{by}; imitates {dense} besides" if dense else by


def _key(how: list[object], files: Iterable[Path]) -> str:
    """12 hexadecimal digits that change with `how` and with any of the files."""
    for file in files:
        state = file.stat()
        how += [str(file.resolve()), state.st_size, state.st_mtime_ns]
    return hashlib.sha256(repr(how).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Measured:
    """What the pictures look like that a detector is measured with. key: changes with them."""

    looks: Looks
    key: str


def measured(datasets: Path | None, cache: Path) -> Measured | None:
    """Of the data sets' WIDER validation pictures, kept in `cache`; None where there are none.

    Raises BadData for pictures that cannot be used.
    """
    root = datasets / "wider" if datasets else None
    if root is None or not root.is_dir():
        return None
    key = _key([], sorted(of for of in root.glob("*.*") if of.is_file()))
    file = cache / f"looks-{key}.npz"
    if not file.is_file():
        looks = Looks.of((of.name, of.pixels) for of in wider(root, "val"))
        file.parent.mkdir(parents=True, exist_ok=True)
        partly = file.with_suffix(".partial.npz")
        np.savez(partly, names=np.array(looks.names, np.str_), bits=looks.bits)
        partly.replace(file)
    with np.load(file) as of:
        looks = Looks(tuple(of["names"].tolist()), of["bits"])
    return Measured(looks, key) if looks.names else None


def load(
    sources: Sequence[Source],
    cache: Path,
    longest: int,
    *,
    encoded: bool = False,
    apart: Measured | None = None,
) -> Photographs:
    """The training pictures of all sources, in their order, with a record of each.

    encoded: keep them as JPEG in files in `cache`, for machines whose memory does not hold them decoded; apart: what
    looks like one of these pictures is left out aloud. Raises BadData for sets that cannot be used, or of which nothing
    is left, BadConfig where decoded pictures need more memory than is free.
    """
    every: list[Photograph] = []
    records = []
    budget = _Budget(None if encoded else free_memory("cpu"))
    for of in sources:

        def shown(of: Source = of) -> Iterator[Photograph]:
            return budget.within(
                tqdm(of.read(), desc=f"photographs, {of.name}", unit="picture", mininterval=5)
            )

        some = cached(cache / f"photographs-{of.key(longest)}.jpegs", shown) if encoded else list(shown())
        # Pictures that stay in a file are not decoded for this at every start.
        file = cache / f"alike-{of.key(longest)}-{apart.key}.json" if apart and encoded else None
        near = _near(of, some, apart, file)
        some = [one for one in some if one.name not in near]
        records.append(of.record(some, len(near) if apart else None))
        every += some
    if not every and any(of.left_out for of in records):
        raise BadData(
            "no picture is left to train on: all look like one that is measured with; give other sets"
        )
    return keep(every, tuple(records))


def selected(sources: Sequence[Source], apart: Measured | None = None) -> list[Photograph]:
    """The pictures that are held out, without those that look like one of `apart`."""
    every: list[Photograph] = []
    for of in sources:
        some = list(of.chosen())
        near = _near(of, some, apart)
        every += [one for one in some if one.name not in near]
    return every


def _near(
    of: Source, photographs: Sequence[Photograph], apart: Measured | None, file: Path | None = None
) -> dict[str, str]:
    """By name those that look like a picture to measure with, and like which; kept in `file` where that is given."""
    if apart is None:
        return {}
    if file is not None and file.is_file():
        near: dict[str, str] = json.loads(file.read_text())
    else:
        each = ((one.name, apart.looks.nearest(np.asarray(one.pixels))) for one in photographs)
        near = {name: other for name, other in each if other is not None}
        if file is not None:
            partly = file.with_suffix(".partial")
            partly.write_text(json.dumps(near))
            partly.replace(file)
    if near:
        first, other = next(iter(near.items()))
        tqdm.write(
            f"{of.path}: {len(near):,} of {len(photographs):,} pictures look like one that is measured with and are "
            f"left out, the first: {first}, like {other}"
        )
    return near


@dataclass
class _Budget:
    """Bytes of memory that decoded pictures may take; None: nobody counts."""

    free: float | None

    def within(self, photographs: Iterable[Photograph]) -> Iterator[Photograph]:
        for one in photographs:
            if self.free is not None:
                self.free -= HALVES * one.pixels.nbytes
                if self.free < 0:
                    raise BadConfig(
                        "the photographs need more memory than is free: set encoded = true, which keeps them as JPEG "
                        "in a file, or lower `longest`"
                    )
            yield one
