"""A bundle on disk: read only when whole, written so that it is never seen half.

The manifest is written last and the folder appears by one rename. Every byte of every file, the manifest's
own included, is under a digest: what `open_bundle` returns is what `write_bundle` was given.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from bundle.manifest import MANIFEST, FileEntry, FileName, Manifest

_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')
_UNSEALED = b'"seal": "' + b"0" * 64 + b'"'
_CHUNK = 1 << 20


class BundleError(Exception):
    """A folder cannot be used as a bundle.

    * BundleError
      + BundleMissing      there is no such folder
      + BundleIncomplete   the manifest, or a file that it lists, is not there
      + BundleTampered     a file differs from the manifest, or is not in it; the message names it
      + BundleInvalid      the manifest breaks the schema
    """


class BundleMissing(BundleError):
    """There is no such folder."""


class BundleIncomplete(BundleError):
    """The manifest, or a file that it lists, is not there."""


class BundleTampered(BundleError):
    """A file differs from what the manifest says, or is not in it."""


class BundleInvalid(BundleError):
    """The manifest breaks the schema."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder whose every file was verified when it was opened."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of a listed file. Raises KeyError for any other name."""
        if name not in self.manifest.files:
            raise KeyError(f"{name} is not a file of {self.manifest.model_id}")
        return self.path / name


def open_bundle(path: Path) -> Bundle:
    """Read and verify the bundle at `path`. Raises BundleError by kind, with the file's name."""
    if not path.is_dir():
        raise BundleMissing(f"{path}: no such folder")
    manifest = _read_manifest(path)
    strangers = sorted(
        entry.name for entry in path.iterdir() if entry.name not in {MANIFEST, *manifest.files}
    )
    if strangers:
        raise BundleTampered(f"{path}: not in the manifest: {', '.join(strangers)}")
    for name, entry in manifest.files.items():
        _verify(path, name, entry)
    return Bundle(path, manifest)


def write_bundle(path: Path, fields: Mapping[str, Any], files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle of `files` (name → content or a file to copy) with the manifest's `fields` at `path`.

    `fields` are Manifest's, without `files` and `seal`, as objects or plain values. An older bundle at
    `path` is replaced only once the new one is whole and verified; any other folder with content is left
    alone and refused. Raises BundleInvalid for fields that break the schema, FileExistsError for a folder
    that is no bundle.
    """
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not a bundle: not replaced")
    for name in files:
        _require_name(name)  # before anything is written: a name must not lead out of the folder
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        partial.chmod(0o755)
        listed = {name: _place(partial / name, content) for name, content in files.items()}
        manifest = _validated({**fields, "files": listed})
        _write(partial / MANIFEST, _sealed(manifest))
        open_bundle(partial)
        _replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_bundle(path)


def digest_of(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> Manifest:
    try:
        data = (path / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise BundleIncomplete(f"{path}: no {MANIFEST}: the bundle was not written to its end") from error
    seals = _SEAL.findall(data)
    if len(seals) == 1 and hashlib.sha256(_SEAL.sub(_UNSEALED, data)).hexdigest().encode() != seals[0]:
        raise BundleTampered(f"{path}: {MANIFEST} was changed after it was written (its seal does not fit)")
    if len(seals) != 1:
        raise BundleInvalid(f"{path}: {MANIFEST} has {len(seals)} seals, expected one")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleInvalid(f"{path}: {MANIFEST}: {_reasons(error)}") from error


def _verify(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    if not file.is_file():
        raise BundleIncomplete(f"{path}: {name} is missing")
    size = file.stat().st_size
    if size != entry.size:
        raise BundleTampered(f"{path}: {name} has {size} bytes, the manifest says {entry.size}")
    if digest_of(file) != entry.sha256:
        raise BundleTampered(f"{path}: {name} differs from its digest in the manifest")


def _require_name(name: str) -> None:
    try:
        TypeAdapter(FileName).validate_python(name)
    except ValidationError as error:
        raise BundleInvalid(f"{name!r} cannot be a file of a bundle") from error
    if name == MANIFEST:
        raise BundleInvalid(f"{MANIFEST} cannot list itself")


def _validated(fields: Mapping[str, Any]) -> Manifest:
    try:
        # Through JSON, so that what is written is exactly what can be read: plain values are welcome here.
        return Manifest.model_validate_json(to_json({**fields, "seal": "0" * 64}))
    except ValidationError as error:
        raise BundleInvalid(f"{MANIFEST}: {_reasons(error)}") from error


def _sealed(manifest: Manifest) -> bytes:
    data = manifest.model_dump_json(indent=1).encode() + b"\n"
    seal = hashlib.sha256(data).hexdigest().encode()
    if data.count(_UNSEALED) != 1:
        raise BundleInvalid(f"{MANIFEST}: a text in it looks like a seal")
    return data.replace(_UNSEALED, b'"seal": "' + seal + b'"')


def _place(target: Path, content: Path | bytes) -> FileEntry:
    if isinstance(content, bytes):
        _write(target, content)
    else:
        shutil.copyfile(content, target)
        _sync(target)
    return FileEntry(sha256=digest_of(target), size=target.stat().st_size)


def _write(target: Path, data: bytes) -> None:
    target.write_bytes(data)
    _sync(target)


def _sync(path: Path) -> None:
    """Until this returns, a rename could survive a power cut that the content did not."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(partial: Path, path: Path) -> None:
    _sync(partial)
    old = partial.with_suffix(".old")
    if path.exists():
        path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _reasons(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'manifest'}: {each['msg']}" for each in error.errors()
    )
