"""People of an evaluation set who may have been trained on are found, by face and by name; strangers are not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.data.identities import Faces
from training.data.overlap import (
    Overlap,
    People,
    apart,
    overlap,
    overlapping,
    people_of,
    same_names,
    usual,
)
from training.data.pairs import Pairs
from training.data.pictures import BadData

DIMENSION = 64
SHARED = 5


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def pictures_of(people: np.ndarray, each: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [n · each, d] of people (n, d), and their rows."""
    label = np.repeat(np.arange(len(people)), each)
    noise = unit(rng.normal(size=(len(label), DIMENSION)))
    return unit(np.sqrt(0.6) * people[label] + np.sqrt(0.4) * noise), label


@pytest.fixture
def sets() -> tuple[People, People]:
    """30 people to train on and 20 to evaluate on; the last five of the first are the first five of the second."""
    rng = np.random.default_rng(0)
    everybody = unit(rng.normal(size=(45, DIMENSION)))
    train, trained = pictures_of(everybody[:30], 6, rng)
    evaluation, evaluated = pictures_of(everybody[30 - SHARED :], 3, rng)
    names = np.array([f"person_{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(45)])
    return (
        People(train, names[trained], True),
        People(evaluation, np.array([f"other {n}" for n in evaluated]), False),
    )


def test_shared_people_are_found_and_strangers_are_not(sets: tuple[People, People]) -> None:
    train, evaluation = sets
    label = np.unique(train.person, return_inverse=True)[1]
    threshold = usual(train.embedding, label)
    found = overlapping(train.embedding, label, evaluation.embedding, evaluation.person.tolist(), threshold)
    assert found == {f"other {n}" for n in range(SHARED)}


def test_one_picture_of_a_person_is_enough(sets: tuple[People, People]) -> None:
    train, evaluation = sets
    label = np.unique(train.person, return_inverse=True)[1]
    mixed = np.array(["a"] * len(evaluation.embedding))
    mixed[0] = "b"
    found = overlapping(train.embedding, label, evaluation.embedding, mixed.tolist(), 0.5)
    assert found == {"a", "b"}
    assert overlapping(train.embedding, label, evaluation.embedding[15:], range(45), 0.5) == set()


def test_the_report_says_who_how_much_and_by_what(sets: tuple[People, People]) -> None:
    report = overlap(*sets, "drawn")
    assert (report.people, report.train_people, report.named) == (20, 30, False)
    assert report.overlapping == {f"other {n}" for n in range(SHARED)}
    assert {of.train_person for of in report.matches} == {f"person_a{chr(122 - n)}" for n in range(1)} | {
        f"person_b{chr(97 + n)}" for n in range(4)
    }
    assert [of.similarity for of in report.matches] == sorted(
        (of.similarity for of in report.matches), reverse=True
    )
    told = json.loads(json.dumps(report.as_json()))
    assert (told["overlapping"], told["by_face"], told["by_name"]) == (5, 5, 0)
    assert str(report) == (
        "drawn: 5 of 20 people may be among the 30 trained on (5 by face, 0 by name; similarity from "
        f"{report.threshold:.2f}; no names to compare)"
    )


def test_namesakes_are_reported_although_their_faces_differ(sets: tuple[People, People]) -> None:
    train, evaluation = sets
    person = evaluation.person.astype("<U20")
    person[-3:] = "Pérson AA"
    report = overlap(train, People(evaluation.embedding, person, True), "drawn")
    assert report.named
    match = next(of for of in report.matches if of.by == ("name",))
    assert (match.person, match.train_person) == ("Pérson AA", "person_aa")
    assert len(report.matches) == SHARED + 1


def test_a_name_is_the_same_however_it_is_written() -> None:
    train = ["George_W._Bush", "zoe muller", "Åsa", "0001", "7"]
    assert same_names(["George W Bush", "Zoë_Müller", "asa", "0001", "7", "nobody"], train) == {
        "George W Bush": "George_W._Bush",
        "Zoë_Müller": "zoe muller",
        "asa": "Åsa",
    }  # numbers name nobody: two sets count from 0


def test_pairs_apart_from_overlapping_people() -> None:
    first, second = np.array(["a", "a", "b", "c"]), np.array(["a", "b", "d", "d"])
    assert apart(first, second, {"a"}).tolist() == [False, False, True, True]
    assert apart(first, second, {"d"}).tolist() == [True, True, False, False]
    assert apart(np.array([1, 2]), np.array([3, 4]), {4}).tolist() == [True, False]
    assert apart(first, second, set()).all()


def test_the_usual_similarity_is_that_of_most_training_faces(sets: tuple[People, People]) -> None:
    train = sets[0]
    label = np.unique(train.person, return_inverse=True)[1]
    total = np.stack([train.embedding[label == n].sum(0) for n in range(30)])
    others = unit(total[label] - train.embedding)  # plainly, without the weights
    own = (others * train.embedding).sum(1)
    assert (own >= usual(train.embedding, label)).mean() == pytest.approx(0.75, abs=0.03)


def test_where_nobody_has_two_pictures_a_threshold_must_be_named(sets: tuple[People, People]) -> None:
    train = sets[0]
    alone = People(train.embedding[::6], train.person[::6], False)
    with pytest.raises(BadData, match="name a threshold"):
        overlap(alone, sets[1], "drawn")
    assert isinstance(overlap(alone, sets[1], "drawn", 0.4), Overlap)


def test_people_of_faces_are_names_where_there_are_names(drawn_faces: Faces) -> None:
    person, named = people_of(drawn_faces)
    assert (person[0], named) == ("50", False)


def test_people_of_pairs_follow_the_names_or_the_mated_pairs() -> None:
    crops = np.zeros((5, 2, 2, 3), np.uint8)
    first, second = np.array([0, 1, 3, 0]), np.array([1, 2, 4, 4])
    same = np.array([True, True, True, False])
    named = Pairs(crops, ("a/a_1", "a/a_2", "a/a_3", "b/b_1", "b/b_2"), first, second, same, 1)
    assert people_of(named)[0].tolist() == ["a", "a", "a", "b", "b"]
    assert people_of(named)[1]
    packed = Pairs(crops, tuple(f"p.bin:{n}" for n in range(5)), first, second, same, 1)
    person, has_names = people_of(packed)
    assert not has_names
    assert person[0] == person[1] == person[2] != person[3] == person[4]
