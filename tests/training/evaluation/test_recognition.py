"""Recognition is measured by the definitions next door, with everybody and without people of the training set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.training.evaluation.drawn_recognition import drawn_lfw, drawn_validation, measured
from training.data.identities import Faces
from training.data.overlap import people_of
from training.data.pairs import Pairs
from training.evaluation.bootstrap import fnmr_intervals
from training.evaluation.identification import first_enrolled, identification
from training.evaluation.recognition import Embedded, Overlap, recognition
from training.evaluation.verification import TooFewImpostors, ten_folds


def part_of(faces: Faces, rows: np.ndarray) -> Faces:
    cut = {
        name: getattr(faces, name)[rows]
        for name in ("pictures", "identity", "family", "similarity", "source")
    }
    return replace(faces, **cut, label=np.unique(faces.identity[rows], return_inverse=True)[1])


def test_every_rate_is_that_of_its_definition() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    (of,), ratio = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, draws=10)
    person = people_of(lfw)[0]
    nobody = np.full(len(person), "")
    assert ratio == {}
    assert (of.lfw, of.on_lfw.error) == ten_folds(lfw.similarity(on_lfw), lfw.same)
    assert [of.fnmr] == fnmr_intervals([ours], validation.identity, validation.family, (1e-2, 1e-3), 10)[0]
    assert [of.on_lfw.fnmr] == fnmr_intervals([on_lfw], person, nobody, (1e-3,), 10)[0]
    search = identification(on_lfw, person, nobody, [first_enrolled(person)], 10)
    assert of.on_lfw.search is not None
    assert of.on_lfw.search.fnir == search.fnir
    assert (of.on_lfw.search.gallery, of.on_lfw.search.mated, of.on_lfw.search.unknown) == (120, 120, 120)
    assert (of.on_lfw.pairs, of.on_lfw.named.people, of.on_lfw.pictures) == (240, 240, 360)
    assert [found.gallery for found in of.on_validation.galleries] == [50]
    assert of.on_validation.galleries[0].splits == 20
    assert {found.group for found in of.on_validation.sources} == {"odd", "even"}
    assert of.on_validation.five_people == pytest.approx(5 / 80)
    assert of.disjoint is None


def test_the_ratio_is_that_of_ours_to_the_reference_whatever_else_stands_there() -> None:
    results, ratio = measured()
    assert [(of.name, of.served) for of in results] == [
        ("facet", True),
        ("facet, flip", False),
        ("reference", True),
    ]
    assert ratio[1e-2].value == pytest.approx(results[0].fnmr[1e-2].value / results[2].fnmr[1e-2].value)
    assert ratio[1e-2].value > 1


def test_without_overlapping_people_is_as_if_they_had_never_been_there() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    overlap = Overlap(frozenset({"P0000", "P0013", "P0100"}), frozenset({101, 150}), "by hand")
    (of,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 10, overlap)
    rows = ~np.isin(validation.identity, [101, 150])
    kept = ~np.isin(people_of(lfw)[0], list(overlap.lfw))
    place = np.cumsum(kept) - 1
    pairs = kept[lfw.first] & kept[lfw.second]
    fewer = Pairs(
        lfw.crops[kept],
        tuple(np.array(lfw.names)[kept].tolist()),
        place[lfw.first],
        place[lfw.second],
        lfw.same,
        lfw.folds,
    )
    whole = part_of(validation, rows)
    person, nobody = people_of(fewer)[0], np.full(int(kept.sum()), "")
    assert of.disjoint is not None
    assert [of.disjoint.validation] == fnmr_intervals(
        [ours[rows]], whole.identity, whole.family, (1e-2, 1e-3), 10
    )[0]
    assert [of.disjoint.lfw.fnmr] == fnmr_intervals([on_lfw[kept]], person, nobody, (1e-3,), 10)[0]
    assert of.disjoint.lfw.accuracy == ten_folds(lfw.similarity(on_lfw), lfw.same, kept=pairs)[0]
    assert (of.disjoint.lfw.named.people, of.disjoint.lfw.pairs) == (237, int(pairs.sum()))
    assert of.disjoint.lfw.pairs < of.on_lfw.pairs == 240


def test_with_nobody_to_leave_out_there_is_nothing_to_tell_twice() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    nobody = Overlap(frozenset(), frozenset(), "by hand")
    assert recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2, nobody)[0][0].disjoint is None


def test_a_small_set_tells_what_it_carries_and_one_that_carries_nothing_is_refused() -> None:
    validation, ours = drawn_validation(people=20)
    lfw, on_lfw = drawn_lfw(half=1)
    (of,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2)
    assert list(of.fnmr) == [1e-2]
    assert of.on_lfw.fnmr == {}
    assert of.on_lfw.search is None
    assert (list(of.on_validation.galleries), list(of.on_validation.sources)) == ([], [])
    validation, ours = drawn_validation(people=5)
    with pytest.raises(TooFewImpostors, match="20 validation faces"):
        recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2)


def test_metrics_are_plain_json_and_name_nobody() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    overlap = Overlap(frozenset({"P0000"}), frozenset({101}), "by hand")
    (of,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2, overlap)
    text = json.dumps({"of": of.metrics(), "overlap": overlap.metrics()})
    told = json.loads(text)["of"]
    assert told["lfw"]["accuracy"] == of.lfw
    assert told["validation"]["fnmr@fmr=0.001"]["value"] == of.fnmr[1e-3].value
    assert told["lfw"]["search"]["fnir@fpir=0.1"]["value"] == pytest.approx(of.on_lfw.search.fnir[0.1].value)
    assert told["without_overlap"]["lfw"]["pairs"] < told["lfw"]["pairs"]
    assert "P0000" not in text


def test_without_pairs_validation_is_measured_alone_and_nothing_else_changes() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    (whole,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2)
    (of,), ratio = recognition([Embedded("facet", ours, None)], validation, None, 2)
    assert (of.lfw, of.on_lfw, ratio) == (None, None, {})
    assert of.fnmr == whole.fnmr
    assert of.metrics()["lfw"] == "not assessed"
    assert of.metrics()["validation"] == whole.metrics()["validation"]


def test_without_pairs_people_of_validation_are_still_left_out() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    people = frozenset({101, 150})
    both = Overlap(frozenset(), people, "by hand"), Overlap(None, people, "by hand")
    (whole,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2, both[0])
    (of,), _ = recognition([Embedded("facet", ours, None)], validation, None, 2, both[1])
    assert of.disjoint is not None
    assert (of.disjoint.lfw, of.disjoint.validation) == (None, whole.disjoint.validation)
    assert (both[0].metrics()["lfw_people"], both[1].metrics()["lfw_people"]) == (0, None)


def test_pairs_that_name_nobody_give_ten_folds_and_no_more() -> None:
    """Two pictures of one person may stand in two pairs of a pack: all pairs of its pictures would be mislabelled."""
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    pack = replace(lfw, names=tuple(f"lfw.bin:{row}" for row in range(len(lfw.names))))
    (named,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, lfw, 2)
    (of,), _ = recognition([Embedded("facet", ours, on_lfw)], validation, pack, 2)
    assert (of.lfw, of.on_lfw.error, of.on_lfw.pairs) == (named.lfw, named.on_lfw.error, 240)
    assert (of.on_lfw.named, dict(of.on_lfw.fnmr), of.on_lfw.search) == (None, {}, None)
    assert set(of.metrics()["lfw"]) == {"accuracy", "standard_error", "pairs"}


def test_people_of_a_pack_who_overlap_leave_with_their_pairs() -> None:
    validation, ours = drawn_validation()
    lfw, on_lfw = drawn_lfw()
    pack = replace(lfw, names=tuple(f"lfw.bin:{row}" for row in range(len(lfw.names))))
    person = people_of(pack)[0]
    linked = str(person[lfw.first[0]])
    (of,), _ = recognition(
        [Embedded("facet", ours, on_lfw)],
        validation,
        pack,
        2,
        Overlap(frozenset({linked}), frozenset(), "by hand"),
    )
    with_them = np.isin(person[lfw.first], [linked]) | np.isin(person[lfw.second], [linked])
    assert of.disjoint.lfw.pairs == 240 - int(with_them.sum()) < 240
