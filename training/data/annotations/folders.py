"""Which picture belongs to which annotation, and what is left over on either side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from itertools import chain
from os.path import isfile
from pathlib import Path, PurePath
from typing import NamedTuple

from training.data.annotations.entries import Annotations, Entry, Finding, Row, entry
from training.data.pictures import SUFFIXES, BadData

ROOMS = {
    "images",
    "labels",
    "annotations",
    "jpegimages",
}  # a picture and its annotation lie in twins of these


class Named(NamedTuple):
    """What one file that lists a whole set says of a picture; where: the line or the entry."""

    name: str
    where: str
    rows: Sequence[Row]
    findings: Sequence[Finding] = ()
    size: tuple[int, int] | None = None


class Pair(NamedTuple):
    """A picture with its own annotation file; name: where the picture lies below its folder."""

    name: str
    picture: Path
    annotation: Path


def listed(
    source: Path,
    form: str,
    named: Iterable[Named],
    pictures: Path | None,
    findings: Sequence[Finding] = (),
) -> Annotations:
    """The set of a file that lists its pictures by name, which lie below `pictures`, or near the file where None.

    Pictures are called by where they lie below that folder, those that lie elsewhere as in the list.
    """
    every = list(named)
    folder = _folder(source, [of.name for of in every], pictures)
    root = folder.resolve()
    entries: dict[Path, Entry] = {}  # by the one path of a picture, however it is called
    over = list(findings)
    for of in every:
        picture = _picture(folder, of.name)
        if picture is None:
            over += [*of.findings, Finding("no_picture", of.where, f"{of.name} is not in {folder}")]
        elif (whole := _whole(picture)) in entries:
            over.append(Finding("named_twice", of.where, of.name))
        else:
            away = _away(of.name)
            below = whole.relative_to(root) if away and whole.is_relative_to(root) else None
            name = str(below or (picture if PurePath(of.name).is_absolute() else picture.relative_to(folder)))
            place = (picture, 0, -1)
            entries[whole] = entry(name, place, of.rows, size=of.size, findings=of.findings)
    if any(of.is_relative_to(root) for of in entries):  # else it is not the pictures' folder
        over += _unannotated(folder, entries.keys(), "is not in the list")
    return Annotations(form, source, tuple(entries.values()), tuple(over))


def _away(name: str) -> bool:
    """Whether it may lie outside the folder that it counts from."""
    of = PurePath(name)
    return of.is_absolute() or ".." in of.parts


def _whole(file: Path) -> Path:
    return file.parent.resolve() / file.name


def _folder(source: Path, names: Sequence[str], given: Path | None) -> Path:
    """Where the named pictures lie: the first likely folder that holds one of them."""
    near = [source.parent, source.parent.parent]
    guesses = chain.from_iterable((of, of / "images", *sorted(of.glob("WIDER_*/images"))) for of in near)
    likely = [given] if given else list(guesses)
    relative = [name for name in names if not PurePath(name).is_absolute()]
    for folder in likely:
        if any(_picture(folder, name) for name in relative):
            return folder
    absolute = [name for name in names if PurePath(name).is_absolute()]
    if any(_picture(likely[0], name) for name in absolute):
        return likely[0]
    where, such = ", ".join(map(str, likely)), f" or at its place, such as {absolute[0]}" if absolute else ""
    raise BadData(
        f"{source}: none of its {len(names)} pictures is in {where}{such}; name their folder (--pictures)"
    )


def _picture(folder: Path, name: str) -> Path | None:
    """The file of that name, or of that name and a picture's suffix."""
    likely = (folder / name, *(folder / f"{name}{suffix}" for suffix in SUFFIXES))
    # Not Path.is_file, which raises for a name that is too long to be one.
    return next((of for of in likely if isfile(of)), None)


def _unannotated(folder: Path, used: Set[Path], why: str) -> Iterator[Finding]:
    for file in files_below(folder, SUFFIXES):
        if _whole(file) not in used:
            yield Finding("no_annotation", str(file), why)


def paired(
    root: Path, pictures: Path | None, suffix: str, besides: Collection[str] = ()
) -> tuple[list[Pair], list[Finding]]:
    """Annotations below `root`, one file a picture, and their pictures below `pictures` (`root` where None).

    A picture and its annotation are called alike, and lie in one folder or in twins: images/a/1.jpg, labels/a/1.txt.
    besides: names of files that are no annotations.
    """
    written = {_key(root, of): of for of in files_below(root, (suffix,)) if of.name not in besides}
    seen: dict[str, Path] = {}
    findings = []
    for picture in files_below(pictures or root, SUFFIXES):
        if seen.setdefault(_key(pictures or root, picture), picture) != picture:
            findings.append(Finding("named_twice", str(picture), "another picture has its name"))
    for key, file in written.items():
        if key not in seen:
            findings.append(Finding("no_picture", str(file), "no picture of its name"))
    for key, picture in seen.items():
        if key not in written:
            why = f"no {suffix} of its name; an empty one says that there is no face"
            findings.append(Finding("no_annotation", str(picture), why))
    both = sorted(seen.keys() & written.keys())
    names = {key: str(seen[key].relative_to(pictures or root)) for key in both}
    return [Pair(names[key], seen[key], written[key]) for key in both], findings


def files_below(root: Path, suffixes: Collection[str]) -> list[Path]:
    """By name; what begins with a dot is left by systems and is nobody's."""
    return sorted(
        of
        for of in root.rglob("*")
        if of.suffix.lower() in suffixes
        and of.is_file()
        and not any(part.startswith(".") for part in of.relative_to(root).parts)
    )


def _key(root: Path, file: Path) -> str:
    folders = [part for part in file.relative_to(root).parent.parts if part.lower() not in ROOMS]
    return str(PurePath(*folders, file.stem))


def classes(source: Path, found: Counter[str], faces: Sequence[str] | None) -> tuple[set[str], list[Finding]]:
    """Which of the classes are faces: those named, else the one that there is, else those called so; and a finding for
    each of the others. Raises BadData where nobody can tell."""
    listed = ", ".join(f"{name} ({count:,})" for name, count in sorted(found.items()))
    if faces:
        chosen = set(faces)
        if found and not chosen & set(found):
            raise BadData(f"{source}: no box is of the class {' or '.join(faces)}; there are {listed}")
    else:
        chosen = {name for name in found if "face" in name.lower()}
        if not chosen and found:
            if len(found) > 1 or not next(iter(found)).isdigit():
                raise BadData(f"{source}: which classes are faces? Name them (--faces): {listed}")
            chosen = set(found)
    others = [
        Finding("other_class", str(source), f"{count:,} boxes of the class {name}")
        for name, count in sorted(found.items())
        if name not in chosen
    ]
    return chosen, others
