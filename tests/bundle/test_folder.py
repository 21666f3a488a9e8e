"""A bundle is opened whole or refused with the name of what is wrong, and never seen half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundle.folder
from bundle.folder import (
    Bundle,
    BundleIncomplete,
    BundleInvalid,
    BundleMissing,
    BundleTampered,
    open_bundle,
    write_bundle,
)
from bundle.manifest import MANIFEST
from tests.bundle.small_manifest import FILES, fields

NAMES = [MANIFEST, *sorted(FILES)]


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "models" / "small", fields(), FILES)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("intact") / "small"
    write_bundle(path, fields(), FILES)
    yield path
    open_bundle(path)  # every test that changes a byte has put it back


def test_what_was_written_is_what_is_opened(written: Bundle) -> None:
    opened = open_bundle(written.path)
    assert opened == written
    assert {name: opened.file(name).read_bytes() for name in FILES} == FILES
    assert opened.manifest.model_id == "small@1.0"
    assert sorted(entry.name for entry in written.path.iterdir()) == sorted(NAMES)
    assert [entry.name for entry in written.path.parent.iterdir()] == ["small"]


def test_a_name_that_is_not_listed_has_no_path(written: Bundle) -> None:
    with pytest.raises(KeyError, match="stranger"):
        written.file("../stranger")


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_byte_in_any_file_is_refused_with_its_name(intact: Path, data: st.DataObject) -> None:
    file = intact / data.draw(st.sampled_from(NAMES))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    file.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
    try:
        with pytest.raises((BundleTampered, BundleInvalid), match=file.name.replace(".", r"\.")):
            open_bundle(intact)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_refused_with_its_name(written: Bundle, name: str) -> None:
    file = written.path / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises((BundleTampered, BundleInvalid), match=name):
        open_bundle(written.path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused_with_its_name(written: Bundle, name: str) -> None:
    (written.path / name).unlink()
    with pytest.raises(BundleIncomplete, match=name):
        open_bundle(written.path)


@pytest.mark.parametrize("kind", ["file", "folder", "hidden"])
def test_a_stranger_in_the_folder_is_refused_with_its_name(written: Bundle, kind: str) -> None:
    stranger = written.path / (".stranger" if kind == "hidden" else "stranger")
    stranger.mkdir() if kind == "folder" else stranger.write_bytes(b"")
    with pytest.raises(BundleTampered, match="stranger"):
        open_bundle(written.path)


def test_no_folder_is_missing_and_a_folder_without_manifest_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing):
        open_bundle(tmp_path / "nothing")
    (tmp_path / "half").mkdir()
    for name, content in FILES.items():
        (tmp_path / "half" / name).write_bytes(content)
    with pytest.raises(BundleIncomplete, match=MANIFEST):
        open_bundle(tmp_path / "half")


def test_a_manifest_edited_by_hand_is_refused(written: Bundle) -> None:
    file = written.path / MANIFEST
    file.write_text(file.read_text().replace("research-only", "commercial"))
    with pytest.raises(BundleTampered, match=MANIFEST):
        open_bundle(written.path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seal": 1}', "\x00\xff"])
def test_what_is_no_manifest_is_invalid(written: Bundle, content: str) -> None:
    (written.path / MANIFEST).write_text(content)
    with pytest.raises(BundleInvalid, match=MANIFEST):
        open_bundle(written.path)


def test_files_may_be_given_as_paths(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    copied = write_bundle(tmp_path / "out", fields(), {name: tmp_path / name for name in FILES})
    assert {name: copied.file(name).read_bytes() for name in FILES} == FILES


def test_a_new_bundle_replaces_an_old_one_whole(written: Bundle) -> None:
    newer = write_bundle(written.path, {**fields(), "version": "2.0"}, {**FILES, "more.txt": b"more"})
    assert newer.manifest.model_id == "small@2.0"
    assert [entry.name for entry in written.path.parent.iterdir()] == ["small"]


def test_wrong_fields_leave_the_old_bundle_alone(written: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="licence"):
        write_bundle(written.path, {**fields(), "licence": {"id": "free", "text": "x"}}, FILES)
    assert open_bundle(written.path) == written
    assert [entry.name for entry in written.path.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("step", ["_place", "_write", "_sync", "_replace"])
def test_a_writer_that_dies_at_any_step_leaves_the_old_bundle_whole(
    written: Bundle, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(bundle.folder, step, die)
    with pytest.raises(OSError, match="disk is full"):
        write_bundle(written.path, {**fields(), "version": "2.0"}, FILES)
    assert open_bundle(written.path) == written
    assert [entry.name for entry in written.path.parent.iterdir()] == ["small"]


def test_a_rename_that_fails_brings_the_old_bundle_back(
    written: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        write_bundle(written.path, {**fields(), "version": "2.0"}, FILES)
    assert open_bundle(written.path) == written


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not a bundle"):
        write_bundle(tmp_path / "photographs", fields(), FILES)
    assert (tmp_path / "photographs" / "mine.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../out.onnx", "a/b.onnx", MANIFEST, ".hidden", ""])
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleInvalid):
        write_bundle(tmp_path / "small", fields(), {**FILES, name: b"x"})
    assert not list(tmp_path.iterdir())


def test_a_bundle_may_be_moved_and_copied(written: Bundle, tmp_path: Path) -> None:
    shutil.copytree(written.path, tmp_path / "elsewhere")
    assert open_bundle(tmp_path / "elsewhere").manifest == written.manifest


def test_the_manifest_is_plain_json(written: Bundle) -> None:
    manifest = json.loads((written.path / MANIFEST).read_bytes())
    assert manifest["files"]["detector.onnx"]["size"] == len(FILES["detector.onnx"])
