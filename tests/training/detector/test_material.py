"""Sets of any kind become one run's photographs, each with a record of who labelled it; what measures is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.training.data.annotations.drawn_set import coco, draw_pictures, retinaface, voc, yolo
from tests.training.data.test_photographs import write
from training.config import BadConfig
from training.data.jpeg_cache import EncodedPixels
from training.data.photographs import Photograph
from training.data.pictures import BadData
from training.data.widerface import held_out, wider
from training.detector import material
from training.detector.material import bare, boxed, load, measured, own, selected

DENSE = "teacher.onnx sha256:0f"


def named(count: int) -> list[str]:
    """Names of which some are held out."""
    return [f"{number}.png" for number in range(count)]


def yolo_set(root: Path, count: int) -> Path:
    """Pictures with one face each."""
    draw_pictures(root, named(count))
    for name in named(count):
        (root / name).with_suffix(".txt").write_text("0 0.5 0.5 0.4 0.5\n")
    return root


@pytest.mark.parametrize("encoded", [False, True])
def test_a_tenth_of_a_set_by_name_selects_and_is_not_trained_on(tmp_path: Path, encoded: bool) -> None:
    source = boxed(yolo_set(tmp_path / "set", 40), 48)
    training = load([source], tmp_path / "runs", 48, encoded=encoded)
    chosen = selected([source])
    assert {one.name for one in chosen} == {name for name in named(40) if held_out(name)} != set()
    assert {one.name for one in training.every} == {name for name in named(40) if not held_out(name)}
    assert max(max(one.pixels.shape) for one in training.every) == 48
    assert isinstance(training.every[0].pixels, EncodedPixels) == encoded
    assert len(list((tmp_path / "runs").glob("*.jpegs"))) == encoded


def test_the_data_sets_own_come_with_their_points_and_say_so(drawn_sets: Any, tmp_path: Path) -> None:
    sources = own(drawn_sets.root, drawn_sets.landmarks, 320)
    training = load(sources, tmp_path, 320)
    assert [of.name for of in training.records] == ["wider", "masks"]
    assert training.records[0].labels == "official, drawn with their points"
    assert training.records[0].terms.startswith("drawn by this program")
    assert sum(of.pictures for of in training.records) == len(training)
    assert any(one.landmarks.size and np.isfinite(one.landmarks).all() for one in training.every)
    assert not any(held_out(one.name) for one in training.every if one.name.startswith("train/"))
    assert all(one.name.startswith("train/") and held_out(one.name) for one in selected(sources))


def test_points_of_a_set_that_has_changed_since_are_refused(drawn_sets: Any, tmp_path: Path) -> None:
    with np.load(drawn_sets.landmarks) as kept:
        points = {name: kept[name] for name in kept.files}
    first = next(name for name in points if name.startswith("train/") and not held_out(name))
    np.savez(tmp_path / "fewer.npz", **{name: of for name, of in points.items() if name != first})
    with pytest.raises(
        BadData, match=rf"fewer\.npz: no landmarks for the \d+ faces of {first}: the set has changed"
    ):
        load(own(drawn_sets.root, tmp_path / "fewer.npz", 320), tmp_path, 320)


def test_pictures_to_measure_with_are_never_trained_on(
    drawn_sets: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = boxed(drawn_sets.root / "wider", 320)
    assert "8 pictures of val/ and test/ take no part" in capsys.readouterr().out
    training = load([source], tmp_path, 320)
    names = {one.name for one in (*training.every, *selected([source]))}
    assert len(names) == 16
    assert all(name.startswith("train/") for name in names)


@pytest.mark.parametrize(
    ("form", "labels"),
    [
        (yolo, "official (YOLO text)"),
        (voc, "official (Pascal VOC)"),
        (retinaface, "official (RetinaFace text)"),
    ],
)
def test_a_record_says_who_labelled_and_under_which_terms(tmp_path: Path, form: Any, labels: str) -> None:
    (tmp_path / "people").mkdir()
    path = form(tmp_path / "people")
    (tmp_path / "people" / "TERMS").write_text("by permission\n")
    source = boxed(path, 64, DENSE)
    (record,) = load([source], tmp_path, 64).records
    assert (record.name, record.terms) == ("people", "by permission")
    assert record.labels == f"{labels}; imitates {DENSE} besides"
    assert record.pictures + len(selected([source])) == 3
    assert len(record.names) == 64


def test_points_that_a_program_marked_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    file = coco(tmp_path / "people")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"info": {"points": "detector 0f"}}))
    assert boxed(file, 64).labels == "official (COCO JSON), points by detector 0f"


def test_pictures_that_nobody_boxed_are_the_teacher_s(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "crowd" / "images" / f"{number}.jpg", number)
    source = bare(tmp_path / "crowd" / "images", 160, DENSE)
    (record,) = load([source], tmp_path, 160).records
    assert (record.name, record.pictures, record.faces) == ("crowd", 3, 0)
    assert (record.labels, record.terms) == (f"pseudo, by {DENSE}", "not stated")
    assert selected([source]) == []


def test_the_names_digest_is_of_the_names_alone(tmp_path: Path) -> None:
    photographs = [Photograph(name, *(None,) * 2, *nothing()) for name in ("b", "a")]  # type: ignore[arg-type]
    source = bare(tmp_path, 64, DENSE)
    assert source.record(photographs).names == source.record(photographs[::-1]).names
    assert source.record(photographs).names != source.record(photographs[:1]).names


def nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, bool), np.zeros((0, 5, 2), np.float32)


def test_a_set_that_has_grown_is_read_again_and_another_stays(tmp_path: Path) -> None:
    def go(count: int) -> tuple[int, set[str]]:
        sources = [boxed(yolo_set(tmp_path / "grows", count), 64), boxed(tmp_path / "stays", 64)]
        training = load(sources, tmp_path / "runs", 64, encoded=True)
        return len(training), {file.name for file in (tmp_path / "runs").iterdir()}

    yolo_set(tmp_path / "stays", 12)
    before, files = go(12)
    after, more = go(20)
    assert after > before
    assert (len(files), len(more - files)) == (2, 1)
    assert files < more


def test_decoded_pictures_that_do_not_fit_are_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = boxed(yolo_set(tmp_path / "set", 12), 64)
    monkeypatch.setattr(material, "free_memory", lambda device: 30_000)
    with pytest.raises(BadConfig, match="more memory than is free: set encoded = true"):
        load([source], tmp_path, 64)
    assert len(load([source], tmp_path, 64, encoded=True)) > 5


def test_two_bad_pictures_of_many_are_passed_over_wherever_they_fall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = yolo_set(tmp_path / "set", 200)
    held = [name for name in named(200) if held_out(name)]
    for name in held[:2]:  # a hundredth of all, more of the tenth that is held out
        (root / name).write_bytes(b"no picture")
    source = boxed(root, 64)
    assert len(selected([source])) == len(held) - 2
    assert "2 unreadable (the picture is left out)" in capsys.readouterr().out
    (root / held[2]).write_bytes(b"no picture")
    with pytest.raises(BadData, match="pictures cannot be used"):
        selected([source])


def test_a_source_is_called_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "crowd" / "JPEGImages").mkdir(parents=True)
    source = bare(tmp_path / "crowd" / "JPEGImages", 64, DENSE)
    assert source.name == "crowd"
    assert replace(source, path=tmp_path / "crowd").name == "crowd"


def with_leaks(root: Path, drawn_sets: Any) -> tuple[Path, set[str], set[str]]:
    """A set of 24 pictures, two to train on and one held out that are validation pictures, smaller; their names, and
    the one's."""
    yolo_set(root, 24)
    train = [name for name in named(24) if not held_out(name)][:2]
    chosen = [name for name in named(24) if held_out(name)][:1]
    for name, one in zip([*train, *chosen], wider(drawn_sets.root / "wider", "val"), strict=False):
        small = cv2.resize(one.pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(root / name), small[..., ::-1])
    return root, set(train), set(chosen)


@pytest.mark.parametrize("encoded", [False, True])
def test_a_picture_that_is_measured_with_is_left_out_whatever_it_is_called(
    drawn_sets: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], encoded: bool
) -> None:
    root, train, chosen = with_leaks(tmp_path / "set", drawn_sets)
    apart, source = measured(drawn_sets.root, tmp_path), boxed(root, 320)
    for _ in range(2):  # and again from what is kept
        training = load([source], tmp_path, 320, encoded=encoded, apart=apart)
        names = {one.name for one in training.every}
        assert names == {name for name in named(24) if not held_out(name)} - train
        (record,) = training.records
        assert (record.pictures, record.left_out) == (len(names), 2)
        told = capsys.readouterr().out
        assert f"2 of {len(names) + 2} pictures look like one that is measured with" in told
        assert f"the first: {min(train, key=named(24).index)}, like val/" in told
    held = {one.name for one in selected([source], apart)}
    assert held == {name for name in named(24) if held_out(name)} - chosen


def test_bare_pictures_are_compared_too_and_a_set_of_nothing_else_is_refused(
    drawn_sets: Any, tmp_path: Path
) -> None:
    (tmp_path / "crowd").mkdir()
    for place, one in enumerate(wider(drawn_sets.root / "wider", "val")):
        cv2.imwrite(str(tmp_path / "crowd" / f"{place}.png"), one.pixels[..., ::-1])
    source = bare(tmp_path / "crowd", 320, DENSE)
    with pytest.raises(BadData, match="no picture is left to train on"):
        load([source], tmp_path, 320, apart=measured(drawn_sets.root, tmp_path))
    assert len(load([source], tmp_path, 320)) == 8


def test_what_is_measured_with_is_looked_at_once(
    drawn_sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(drawn_sets.root, tmp_path)
    assert first is not None
    assert len(first.looks.names) == 8
    monkeypatch.setattr(material, "wider", lambda *_: pytest.fail("looked again"))
    again = measured(drawn_sets.root, tmp_path)
    assert again is not None
    assert again.looks.names == first.looks.names
    assert (again.looks.bits == first.looks.bits).all()


def test_without_validation_pictures_nothing_is_compared(tmp_path: Path) -> None:
    assert measured(None, tmp_path) is None
    assert measured(tmp_path, tmp_path) is None
    (record,) = load([boxed(yolo_set(tmp_path / "set", 12), 64)], tmp_path, 64).records
    assert record.left_out is None
