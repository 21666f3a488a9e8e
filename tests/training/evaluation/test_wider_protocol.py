"""The evaluator against the properties that a port of it must have, and against a literal transcription."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decode import Detections
from training.evaluation.wider_protocol import (
    SETTINGS,
    Truth,
    average_precision,
    difference,
    official,
    protocol,
    tally,
)

OFFICIAL = Path(__file__).with_name("official_wider.json")


def as_found(truths: dict[str, Truth], scores: np.ndarray | None = None) -> dict[str, Detections]:
    """The truth as an answer; pixel centres are integers, so edges lie half a pixel out."""
    answers = {}
    for name, truth in truths.items():
        boxes = np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]], 1) - np.float32(
            0.5
        )
        score = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32) if scores is None else scores
        answers[name] = Detections(boxes, np.zeros((len(boxes), 5, 2), np.float32), score)
    return answers


def crowd(seed: int, pictures: int = 5) -> tuple[dict[str, Truth], dict[str, Detections]]:
    """Truths, and a detector that finds most faces roughly, some twice, and some things besides."""
    rng = np.random.default_rng(seed)
    truths, found = {}, {}
    for index in range(pictures):
        count = int(rng.integers(1, 6))
        boxes = np.concatenate([rng.uniform(0, 300, (count, 2)), rng.uniform(15, 60, (count, 2))], 1).astype(
            np.float32
        )
        truths[f"e/{index}"] = Truth(boxes, rng.random(count) < 0.7)
        again = np.concatenate(
            [boxes, boxes[:1], boxes + np.array([0, 0, 40, 40]), boxes + np.array([400, 0, 0, 0])]
        )
        again = again + rng.normal(0, 3, again.shape)
        corners = np.concatenate([again[:, :2], again[:, :2] + again[:, 2:].clip(2)], 1).astype(np.float32)
        # Scores all different over the data set: ties have no order to be right about.
        score = ((rng.permutation(len(corners)) + index / pictures) / len(corners)).astype(np.float32)
        found[f"e/{index}"] = Detections(corners, np.zeros((len(corners), 5, 2), np.float32), score)
    return truths, found


def literal(truths: dict[str, Truth], found: dict[str, Detections]) -> float:
    """The original's loops, one by one, on detections sorted by score."""
    every = np.concatenate([of.scores for of in found.values()]).astype(float)
    low, high, total = every.min(), every.max(), 0
    curve = np.zeros((1000, 2))
    for name, truth in truths.items():
        total += int(truth.counts.sum())
        order = np.argsort(-found[name].scores, kind="stable")
        boxes, scores = (
            found[name].boxes[order] + 0.5,
            (found[name].scores[order].astype(float) - low) / (high - low),
        )
        state, proposal, recalled = np.zeros(len(truth.boxes)), np.ones(len(boxes)), np.zeros(len(boxes))
        for h, (x1, y1, x2, y2) in enumerate(boxes):
            overlaps = []
            for gx, gy, gw, gh in truth.boxes:
                across, down = min(x2, gx + gw) - max(x1, gx) + 1, min(y2, gy + gh) - max(y1, gy) + 1
                common = across * down if across > 0 and down > 0 else 0.0
                overlaps.append(common / ((x2 - x1 + 1) * (y2 - y1 + 1) + (gw + 1) * (gh + 1) - common))
            best = int(np.argmax(overlaps))
            if overlaps[best] >= 0.5:
                if not truth.counts[best]:
                    state[best], proposal[h] = -1, -1
                elif state[best] == 0:
                    state[best] = 1
            recalled[h] = (state == 1).sum()
        for t in range(1000):
            above = np.where(scores >= 1 - (t + 1) / 1000)[0]
            if len(above):
                curve[t] += [(proposal[: above[-1] + 1] == 1).sum(), recalled[above[-1]]]
    recall, precision = curve[:, 1] / total, curve[:, 1] / np.maximum(curve[:, 0], 1)
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    steps = np.where(recall[1:] != recall[:-1])[0]
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_equals_the_original_written_out(seed: int) -> None:
    truths, found = crowd(seed)
    if any(truth.counts.any() for truth in truths.values()):
        assert average_precision(truths, found) == pytest.approx(literal(truths, found), abs=1e-6)


def official_fixture(setting: str) -> tuple[dict[str, Truth], dict[str, Detections]]:
    """Drawn lists and answers in 61 events, which the official toolkit has evaluated; see the file."""
    truths, found = {}, {}
    for picture in json.loads(OFFICIAL.read_text())["pictures"]:
        faces = np.array(picture["faces"], np.float32).reshape(-1, 4)
        counts = np.zeros(len(faces), bool)
        counts[np.array(picture["counts"][setting], int) - 1] = True
        truths[picture["name"]] = Truth(faces, counts)
        if picture["found"] is not None:
            rows = np.array(picture["found"], np.float32).reshape(-1, 5)
            corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) - np.float32(0.5)
            points = np.zeros((len(rows), 5, 2), np.float32)
            found[picture["name"]] = Detections(corners, points, rows[:, 4])
    return truths, found


@pytest.mark.parametrize("arithmetic", ["real", "whole"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_equals_the_official_toolkit(setting: str, arithmetic: str) -> None:
    """Its MATLAB code, run under Octave, with the lists as real and as whole numbers."""
    expected = json.loads(OFFICIAL.read_text())["expected"][arithmetic][setting]
    measured = average_precision(*official_fixture(setting), whole=arithmetic == "whole")
    assert measured == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_official_fixture_is_invariant_too(setting: str) -> None:
    """The truth as an answer is perfect, nothing is nothing, the order is nothing, twice is less."""
    truths, found = official_fixture(setting)
    before = average_precision(truths, found)
    turned = {
        name: Detections(of.boxes[::-1], of.landmarks[::-1], of.scores[::-1]) for name, of in found.items()
    }
    distinct = {name for name, of in found.items() if len(np.unique(of.scores)) == len(of)}
    assert average_precision(truths, {**found, **{name: turned[name] for name in distinct}}) == before
    twice = {
        name: Detections(*(np.concatenate([part, part]) for part in (of.boxes, of.landmarks, of.scores)))
        for name, of in found.items()
    }
    assert average_precision(truths, twice) < before
    apart = {
        name: Truth(of.boxes + 1000 * np.arange(len(of.boxes))[:, None] * [1, 0, 0, 0], of.counts)
        for name, of in truths.items()
    }
    assert average_precision(apart, as_found(apart)) == pytest.approx(1.0)
    assert average_precision(truths, {}) == 0.0


def test_a_picture_that_counts_twice_weighs_as_two() -> None:
    truths, found = crowd(3)
    doubled = {**truths, "e/again": truths["e/1"]}, {**found, "e/again": found["e/1"]}
    weights = np.array([[1.0, 2, 1, 1, 1]])
    assert tally(truths, found).average_precisions(weights)[0] == pytest.approx(average_precision(*doubled))


def test_a_detector_less_itself_is_nothing_and_less_a_worse_one_is_something() -> None:
    truths, found = crowd(4, pictures=40)
    same = tally(truths, found)
    none = difference(same, same, draws=30)
    assert (none.low, none.value, none.high) == (0, 0, 0)
    good = tally(truths, as_found(truths))
    of = difference(good, same, draws=60)
    assert 0 < of.low <= of.value <= of.high
    assert of.value == pytest.approx(good.average_precision - same.average_precision)


def test_differences_narrow_with_more_pictures_and_are_paired() -> None:
    """Two detectors that differ in one find a picture alone differ by less than either varies."""
    widths = []
    for pictures in (10, 90):
        truths, found = crowd(5, pictures=pictures)
        fewer = {
            name: Detections(of.boxes[1:], of.landmarks[1:], of.scores[1:]) for name, of in found.items()
        }
        of = difference(tally(truths, found), tally(truths, fewer), draws=150)
        widths.append(of.high - of.low)
    assert widths[1] < widths[0]
    alone = difference(tally(truths, found), tally(truths, {}), draws=150)
    assert widths[1] < alone.high - alone.low


def test_a_fixture_counted_by_hand() -> None:
    """Two faces; finds in order: hit, miss, hit. Precision 1 up to recall ½, then ⅔ up to 1."""
    truths = {
        "e/0": Truth(np.array([[10, 10, 20, 20], [100, 100, 20, 20]], np.float32), np.array([True, True]))
    }
    boxes = np.array([[10, 10, 30, 30], [200, 200, 220, 220], [100, 100, 120, 120]], np.float32) - np.float32(
        0.5
    )
    found = {"e/0": Detections(boxes, np.zeros((3, 5, 2), np.float32), np.array([0.9, 0.6, 0.3], np.float32))}
    assert average_precision(truths, found) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_truth_is_perfect_and_nothing_is_nothing(seed: int) -> None:
    truths, _ = crowd(seed)
    # Faces apart from each other: of two that overlap by half, the original lets one hide the other.
    for truth in truths.values():
        truth.boxes[:, 0] += 1000 * np.arange(len(truth.boxes))
    if any(truth.counts.any() for truth in truths.values()):
        assert average_precision(truths, as_found(truths)) == pytest.approx(1.0)
    assert average_precision(truths, {}) == 0.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_does_not_matter(seed: int) -> None:
    truths, found = crowd(seed)
    rng, shuffled = np.random.default_rng(seed), {}
    for name in rng.permutation(list(found)):
        order, of = rng.permutation(len(found[name])), found[name]
        shuffled[name] = Detections(of.boxes[order], of.landmarks[order], of.scores[order])
    assert average_precision(truths, shuffled) == pytest.approx(average_precision(truths, found), abs=1e-12)


def test_answering_twice_costs_precision() -> None:
    truths, _ = crowd(1)
    found = as_found(truths)
    twice = {
        name: Detections(np.repeat(of.boxes, 2, 0), np.repeat(of.landmarks, 2, 0), np.repeat(of.scores, 2))
        for name, of in found.items()
    }
    assert average_precision(truths, twice) < average_precision(truths, found)


def test_a_picture_without_an_answer_keeps_its_faces_in_the_denominator() -> None:
    truths, _ = crowd(2)
    found = as_found(truths)
    del found["e/0"]
    missing = truths["e/0"].counts.sum() / sum(truth.counts.sum() for truth in truths.values())
    assert average_precision(truths, found) <= 1 - missing + 1e-6


def test_what_is_found_in_a_reduced_picture_is_judged_at_the_size_of_the_original() -> None:
    truths = {"e/0": Truth(np.array([[100, 100, 50, 60]], np.float32), np.array([True]))}
    original = as_found(truths)["e/0"]
    reduced = Detections(
        (original.boxes + 0.5) / 2 - 0.5, (original.landmarks + 0.5) / 2 - 0.5, original.scores
    )
    assert average_precision(truths, {"e/0": reduced}) == 0
    restored = official(reduced, 512)
    np.testing.assert_allclose(restored.boxes, original.boxes, atol=1e-4)
    assert average_precision(truths, {"e/0": restored}) == pytest.approx(1.0)


@pytest.mark.needs_data
def test_the_official_lists_are_1024_pixels_wide(datasets: Path) -> None:
    """Every annotated box, scaled from the picture's width to 1,024, is the official list's box."""
    truths = protocol(datasets / "wider" / "val_protocol", "hard")
    notes = json.loads((datasets / "wider" / "annotations.json").read_text())
    present = {name: note for name, note in notes.items() if name.startswith("val/")}
    assert len(present) == 394
    for name, note in present.items():
        boxes = np.array([row[:4] for row in note["boxes"]]) * (1024 / note["width"])
        assert np.abs(boxes - truths[name[4:-5]].boxes).max() < 1


@pytest.mark.needs_data
def test_the_official_lists_have_the_official_counts(datasets: Path) -> None:
    counts = {}
    for setting in SETTINGS:
        truths = protocol(datasets / "wider" / "val_protocol", setting)
        assert len(truths) == 3226
        counts[setting] = sum(int(truth.counts.sum()) for truth in truths.values())
    assert counts == {"easy": 7211, "medium": 13319, "hard": 31958}
