"""What is believed of an annotation: every defect is named by its line, and nothing impossible gets through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.annotations.entries import DONE, Entry, Judged, Row, entry, judged, lost
from training.data.detection_augment import MIRRORED

WIDTH, HEIGHT = 80, 60
FACE = np.array([(20, 20), (40, 20), (30, 30), (22, 40), (38, 40)], float)  # in a box of 10 10 50 50


def one(*box: float, landmarks: np.ndarray | None = None, relative: bool = False) -> Entry:
    points = None if landmarks is None else landmarks.ravel().tolist()
    return entry("a", (Path("a"), 0, -1), [Row("list.txt:7", box, landmarks=points)], relative=relative)


def verdict(*box: float, landmarks: np.ndarray | None = None, relative: bool = False) -> Judged:
    return judged(one(*box, landmarks=landmarks, relative=relative), WIDTH, HEIGHT)


def kinds(found: Judged) -> list[str]:
    return [of.kind for of in found.findings]


def test_a_sound_box_is_half_a_pixel_less_and_passes_without_a_word() -> None:
    found = verdict(10, 10, 50, 50, landmarks=FACE)
    assert found.findings == ()
    assert found.boxes.tolist() == [[9.5, 9.5, 49.5, 49.5]]
    np.testing.assert_array_equal(found.landmarks[0], FACE - 0.5)
    assert not found.ignored.any()


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((10, 10, 10, 30), "no_area"),
        ((10, 10, 4, 30), "no_area"),
        ((10, 10, 10.9, 30), "no_area"),
        ((90, 90, 90, 90), "no_area"),
        ((-20, 10, 0.5, 30), "no_area"),
        ((float("nan"), 10, 30, 30), "not_a_number"),
        ((10, 10, float("inf"), 30), "not_a_number"),
        ((-20, 10, -3, 30), "outside"),
        ((10, 60, 30, 90), "outside"),
        ((0.1, 0.2, 0.3, 0.4), "normalised"),
        ((0, 0, 0.5, 1), "normalised"),
        ((-4, 10, 30, 30), "clipped"),
        ((10, 10, 30, 64), "clipped"),
    ],
)
def test_every_defect_of_a_box_is_named_with_its_line(box: tuple[float, ...], kind: str) -> None:
    found = verdict(*box)
    assert kinds(found) == [kind]
    assert found.findings[0].where == "list.txt:7"
    assert kind in DONE
    assert found.ignored.tolist() == [kind == "no_area"]
    unplaced = {"not_a_number", "outside", "normalised"}
    assert lost(found.findings[0]) == (kind in unplaced)


def test_a_pixel_beyond_the_edge_is_rounding() -> None:
    found = verdict(-1, 0, 81, 61)
    assert found.findings == ()
    assert found.boxes.tolist() == [[-0.5, -0.5, WIDTH - 0.5, HEIGHT - 0.5]]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((10, 10, 50, 50), "absolute"),
        ((0.5, 0.5, 0.9, 7), "absolute"),
        ((-3, 0.2, 0.5, 0.5), "absolute"),
        ((0.2, 0.2, 0.5, 1.3), "clipped"),
        ((1.1, 0.2, 1.4, 0.3), "outside"),
        ((0.5, 0.5, 0.501, 0.9), "no_area"),
    ],
)
def test_fractions_are_judged_as_fractions(box: tuple[float, ...], kind: str) -> None:
    assert kinds(verdict(*box, relative=True)) == [kind]


def test_fractions_are_of_the_whole_picture() -> None:
    found = verdict(0.25, 0.5, 1, 1, relative=True)
    assert found.findings == ()
    assert found.boxes.tolist() == [[19.5, 29.5, 79.5, 59.5]]


def test_a_box_of_the_first_pixel_is_no_fraction() -> None:
    assert kinds(verdict(0, 0, 1, 1)) == []


def test_landmarks_out_of_the_box_become_unknown_and_the_box_stays() -> None:
    away = FACE.copy()
    away[4] = (75, 40)
    found = verdict(10, 10, 50, 50, landmarks=away)
    assert kinds(found) == ["landmarks_outside"]
    assert np.isnan(found.landmarks).all()
    assert not found.ignored.any()
    assert kinds(verdict(20, 20, 60, 60, landmarks=FACE / (WIDTH, HEIGHT))) == ["landmarks_outside"]


@given(angle=st.floats(0, 2 * np.pi))
def test_swapped_sides_are_noticed_however_the_face_is_turned(angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (FACE - 30) @ turn.T + 30
    assert kinds(verdict(5, 5, 55, 55, landmarks=turned)) == []
    found = verdict(5, 5, 55, 55, landmarks=turned[MIRRORED])
    assert kinds(found) == ["landmarks_mirrored"]
    assert np.isnan(found.landmarks).all()


def test_in_profile_the_sides_are_nobodys_guess() -> None:
    profile = FACE.copy()
    profile[:, 0] = (31, 30, 38, 31, 30)
    assert kinds(verdict(10, 10, 50, 50, landmarks=profile)) == []


def test_one_unknown_point_makes_all_five_unknown() -> None:
    points = FACE.copy()
    points[2] = np.nan
    found = verdict(10, 10, 50, 50, landmarks=points)
    assert found.findings == ()
    assert np.isnan(found.landmarks).all()


edges = st.one_of(st.floats(-200, 200), st.floats(-2, 2), st.sampled_from([0.0, 80.0, 60.0, np.nan, np.inf]))


@settings(max_examples=200)
@given(rows=st.lists(st.tuples(edges, edges, edges, edges), max_size=4), relative=st.booleans())
def test_nothing_impossible_gets_through(rows: list[tuple[float, ...]], relative: bool) -> None:
    of = entry("a", (Path("a"), 0, -1), [Row(f"l:{i}", row) for i, row in enumerate(rows)], relative=relative)
    found = judged(of, WIDTH, HEIGHT)
    blamed = {one.where for one in found.findings if lost(one)}
    for number, (box, ignored) in enumerate(zip(found.boxes, found.ignored, strict=True)):
        if f"l:{number}" in blamed:
            continue
        assert np.isfinite(box).all()
        assert ((box >= -0.5) & (box <= np.tile([WIDTH, HEIGHT], 2) - 0.5)).all()
        assert ignored or (box[2:] > box[:2]).all()


def test_a_picture_without_faces_has_empty_boxes() -> None:
    found = judged(entry("a", (Path("a"), 0, -1), []), WIDTH, HEIGHT)
    assert (found.boxes.shape, found.ignored.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))
