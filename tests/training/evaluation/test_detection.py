from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decode import Detections
from training.evaluation.detection import Scene, area, counted, curve, judge, recall_at_false_positives


def found(*rows: tuple[float, float, float, float, float]) -> Detections:
    """Detections from (score, x1, y1, x2, y2)."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(values[:, 1:], np.zeros((len(values), 5, 2), np.float32), values[:, 0])


def scene(*boxes: tuple[float, float, float, float], ignored: int = 0, least_height: float = 0) -> Scene:
    """The last `ignored` boxes do not count."""
    flags = np.arange(len(boxes)) >= len(boxes) - ignored
    return Scene(np.array(boxes, np.float32).reshape(-1, 4), flags, least_height)


NEAR, FAR, ELSEWHERE = (0, 0, 40, 50), (100, 100, 140, 150), (300, 300, 340, 350)


def test_the_truth_as_answer_is_perfect() -> None:
    result = recall_at_false_positives(
        [scene(NEAR, FAR), scene(FAR)], [found((0.9, *NEAR), (0.4, *FAR)), found((0.5, *FAR))]
    )
    assert (result.recall, result.faces, result.pictures) == (1.0, 3, 2)
    assert result.threshold == pytest.approx(0.4)


def test_no_answer_finds_nothing() -> None:
    assert recall_at_false_positives([scene(NEAR)], [found()]).recall == 0
    assert recall_at_false_positives([scene()], [found((0.5, *NEAR))]).recall == 0


def test_the_threshold_is_one_for_all_pictures_and_pays_for_false_positives() -> None:
    scenes = [scene(NEAR), scene(NEAR)]
    answers = [found((0.9, *NEAR), (0.8, *FAR), (0.7, *ELSEWHERE)), found((0.6, *NEAR))]
    assert recall_at_false_positives(scenes, answers, per_picture=1.0).recall == 1.0
    strict = recall_at_false_positives(scenes, answers, per_picture=0.5)
    assert (strict.recall, strict.threshold) == (0.5, pytest.approx(0.8))
    assert recall_at_false_positives(scenes, answers, per_picture=0).recall == 0.5


def test_a_second_find_of_one_face_is_a_false_positive() -> None:
    _, hit, miss = judge(scene(NEAR), found((0.5, 1, 1, 41, 51), (0.9, *NEAR)))
    assert hit.tolist() == [True, False]
    assert miss.tolist() == [False, True]


def test_what_lies_on_an_ignored_face_is_neither_hit_nor_false() -> None:
    _, hit, miss = judge(
        scene(NEAR, FAR, ignored=1), found((0.9, *FAR), (0.8, 110, 110, 130, 130), (0.7, *ELSEWHERE))
    )
    assert not hit.any()
    assert miss.tolist() == [False, False, True]


def test_a_find_too_small_to_count_is_no_false_positive_but_may_still_be_a_hit() -> None:
    truth = scene((0, 0, 40, 42), least_height=40)
    _, hit, miss = judge(truth, found((0.9, 0, 0, 40, 38), (0.8, 300, 300, 330, 338), (0.7, *ELSEWHERE)))
    assert hit.tolist() == [True, False, False]
    assert miss.tolist() == [False, False, True]


def test_faces_below_the_height_do_not_count() -> None:
    boxes = np.array([NEAR, (0, 0, 10, 10)], np.float32)
    assert counted(boxes, np.array([False, False]), 1.0, 40).ignored.tolist() == [False, True]
    assert counted(boxes, np.array([False, False]), 0.7, 40).ignored.tolist() == [True, True]
    assert counted(boxes, np.array([True, False]), 1.0, 5).ignored.tolist() == [True, False]
    assert counted(boxes, np.array([False, False]), 0.5, 20).least_height == 40


def test_faces_of_other_heights_neither_count_nor_harm() -> None:
    boxes = np.array([NEAR, (0, 200, 10, 210)], np.float32)
    truth = counted(boxes, np.zeros(2, bool), scale=0.5, at_least=16, below=32)
    assert truth.ignored.tolist() == [False, True]  # 25 and 5 pixels as seen
    tall, short, wrong = (300, 0, 340, 64), (300, 0, 340, 31), (300, 0, 340, 40)
    _, hit, miss = judge(truth, found((0.9, *NEAR), (0.8, *tall), (0.7, *short), (0.6, *wrong)))
    assert hit.tolist() == [True, False, False, False]
    assert miss.tolist() == [False, False, False, True]


def test_a_curve_tells_every_threshold_and_its_area_by_hand() -> None:
    """In order: hit, miss, hit of two faces. Precision 1 up to recall ½, then ⅔ up to 1."""
    of = curve([scene(NEAR, FAR)], [found((0.9, *NEAR), (0.6, *ELSEWHERE), (0.3, *FAR))])
    assert of.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert of.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert [of.recall_from(at) for at in (0.95, 0.89, 0.5, 0.1)] == [0, 0.5, 0.5, 1]
    assert of.at_false_positives(0).threshold == pytest.approx(0.9)
    empty = curve([scene()], [found((0.9, *NEAR))])
    assert np.isnan(empty.average_precision)
    assert np.isnan(empty.recall_from(0.1))


def test_the_area_is_under_the_envelope() -> None:
    assert area(np.array([0.2, 0.4]), np.array([0.1, 0.5])) == pytest.approx(0.4 * 0.5)
    assert area(np.zeros(0), np.zeros(0)) == 0


def test_equal_scores_pass_the_threshold_together() -> None:
    result = recall_at_false_positives([scene(NEAR)], [found((0.5, *NEAR), (0.5, *FAR), (0.5, *ELSEWHERE))])
    assert result.recall == 0  # a threshold of 0.5 lets two false positives in


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_neither_the_order_of_finds_nor_of_pictures_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes, answers = [], []
    for _ in range(4):
        low = rng.uniform(0, 200, (3, 2))
        boxes = np.concatenate([low, low + rng.uniform(20, 80, (3, 2))], 1).astype(np.float32)
        scenes.append(Scene(boxes, rng.random(3) < 0.3))
        guesses = np.concatenate([boxes + rng.normal(0, 5, boxes.shape), boxes + 90]).astype(np.float32)
        # All different: which of two equal finds is the duplicate is a matter of order.
        score = ((rng.permutation(6) + rng.random()) / 7).astype(np.float32)
        answers.append(Detections(guesses, np.zeros((6, 5, 2), np.float32), score))
    before = recall_at_false_positives(scenes, answers, per_picture=0.5)
    pictures = rng.permutation(4)
    shuffled = []
    for index in pictures:
        finds, of = rng.permutation(6), answers[index]
        shuffled.append(Detections(of.boxes[finds], of.landmarks[finds], of.scores[finds]))
    assert recall_at_false_positives([scenes[i] for i in pictures], shuffled, per_picture=0.5) == before


def test_scenes_and_answers_must_pair_up() -> None:
    with pytest.raises(ValueError, match="1 scenes, 0 answers"):
        recall_at_false_positives([scene(NEAR)], [])
