"""Each gate holds up to its limit and not beyond, says what it measured, and what cannot be assessed fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle.manifest import Licence
from training.config import BadConfig, read_config
from training.evaluation.bootstrap import Interval
from training.evaluation.floors import Verdict
from training.export.ladder import CANONICAL, EXACT, PICTURES, Rung
from training.export.parity import Agreement, FoundAgreement
from training.gates import (
    CONFIGS,
    Candidate,
    Gate,
    Incumbent,
    Policy,
    judge,
    judge_calibration,
    judge_size,
    parity_gate,
    standing_policy,
    strictest,
)

RESEARCH, COMMERCIAL = (Licence(id=of, text="…") for of in ("research-only", "commercial"))
AGREEMENT = Agreement(1.0, 1.0, 1.0, 1e-7, 100)
FOUND = FoundAgreement(0.998, 1.0, 0.0, 0.0, 0.0, 50)
CANDIDATE = Candidate(
    rungs=[
        Rung(CANONICAL, "a.onnx", True, "", AGREEMENT),
        Rung(EXACT, "b.onnx", True, "", AGREEMENT),
        Rung(CANONICAL, "d.onnx", True, "", FOUND, told=PICTURES),
    ],
    verdicts=[Verdict("LFW accuracy, at least", 0.95, 0.97, True)],
    milliseconds=3.0,
    reference_milliseconds=3.0,
    picture_milliseconds=(15.0, 6.0),
    sizes={"embedder": 4_000_000, "detector": 4_000_000},
    licence=RESEARCH,
    terms={"faces": "research-only", "lfw": "research-only"},
)
AP = {
    "easy": Interval(0.01, 0.0, 0.02),
    "medium": Interval(0.0, -0.004, 0.004),
    "hard": Interval(0.03, 0.01, 0.05),
}
OLD = Incumbent("default@1", Interval(-0.01, -0.02, 0.0), 3.0, Interval(0.005, -0.002, 0.012), AP)
POLICY = Policy()


def gate(
    name: str, candidate: Candidate = CANDIDATE, old: Incumbent | None = OLD, policy: Policy = POLICY
) -> Gate:
    (found,) = [of for of in judge(candidate, old, policy) if of.name.startswith(name)]
    return found


def test_a_bundle_that_is_better_in_all_passes_every_gate() -> None:
    judged = judge(CANDIDATE, OLD, POLICY)
    assert [str(of) for of in judged if not of.holds] == []
    assert len({of.name for of in judged}) == len(judged) == 12
    json.dumps([of.row() for of in judged], allow_nan=False)


def test_each_gate_says_what_was_measured_and_required() -> None:
    for of in judge(CANDIDATE, OLD, POLICY):
        row = of.row()
        assert set(row) == {"name", "holds", "reason", "measured", "required", "interval"}
        assert row["measured"] is not None, of.name
        assert row["required"] is not None, of.name
        assert len(of.reason) > 10


@pytest.mark.parametrize(("high", "holds"), [(-0.005, True), (0.01, True), (0.0101, False)])
def test_accuracy_is_judged_by_the_upper_bound(high: float, holds: bool) -> None:
    """Better on the whole is not enough if it may well be worse on other people."""
    found = gate("accuracy", old=replace(OLD, fnmr_difference=Interval(-0.01, -0.03, high)))
    assert (found.holds, found.measured, found.interval) == (holds, -0.01, (-0.03, high))
    assert "-1.00% against default@1, 95 % from -3.00% to" in found.reason


def test_without_an_incumbent_there_is_nothing_to_be_worse_than() -> None:
    judged = judge(CANDIDATE, None, POLICY)
    assert all(of.holds for of in judged)
    told = [of for of in judged if "no incumbent" in of.reason]
    assert [of.name.split(":")[0] for of in told] == ["accuracy", "detection", "detection", "speed"]


def test_a_difference_that_the_faces_do_not_carry_is_not_a_pass() -> None:
    found = gate("accuracy", old=replace(OLD, fnmr_difference=None))
    assert not found.holds
    assert "not assessed: the faces do not carry FMR 0.001" in found.reason


@pytest.mark.parametrize(("low", "holds"), [(0.001, True), (-0.01, True), (-0.0101, False)])
def test_detection_is_judged_by_the_lower_bound(low: float, holds: bool) -> None:
    """Finding more on the whole is not enough if other pictures may well show that it finds less."""
    found = gate("detection: recall", old=replace(OLD, recall_difference=Interval(0.004, low, 0.02)))
    assert (found.holds, found.measured, found.required) == (holds, 0.004, -0.01)
    assert found.interval == (low, 0.02)
    assert "+0.40% against default@1, 95 % from" in found.reason
    assert found.reason.endswith("by drawing pictures anew; the lower bound may be -1.00%")


def test_a_recall_that_the_pictures_do_not_carry_is_not_a_pass() -> None:
    found = gate("detection: recall", old=replace(OLD, recall_difference=None))
    assert not found.holds
    assert "not assessed: the pictures are too few" in found.reason


@pytest.mark.parametrize("setting", ["easy", "medium", "hard"])
@pytest.mark.parametrize(("low", "holds"), [(-0.01, True), (-0.0101, False)])
def test_average_precision_is_judged_by_the_worst_of_three_lower_bounds(
    setting: str, low: float, holds: bool
) -> None:
    """Recall is of large faces: a detector that loses the small ones is refused here."""
    name = "detection: WIDER's AP"
    found = gate(name, old=replace(OLD, ap_differences=AP | {setting: Interval(0.002, low, 0.01)}))
    assert (found.holds, found.measured, found.required) == (holds, 0.002, -0.01)
    assert found.interval == (low, 0.01)
    assert found.reason.startswith(f"{setting} +0.0020, 95 % from {low:+.4f} to +0.0100; ")
    assert all(f"{of} {AP[of].value:+.4f}" in found.reason for of in AP if of != setting)
    assert found.reason.endswith("against default@1, by drawing pictures anew; each lower bound may be -0.01")


def test_without_wider_s_lists_average_precision_is_not_a_pass() -> None:
    found = gate("detection: WIDER's AP", old=replace(OLD, ap_differences=None))
    assert not found.holds
    assert "WIDER's lists (val_protocol) are not there" in found.reason


@pytest.mark.parametrize("name", ["detection: recall", "detection: WIDER's AP"])
def test_a_detector_that_is_the_old_one_is_no_worse(name: str) -> None:
    found = gate(name, old=replace(OLD, recall_difference=None, ap_differences=None, same_detector=True))
    assert (found.holds, found.measured, found.required) == (True, 0.0, -0.01)
    assert found.reason == "the detector is that of default@1, graph and reading: no difference"


@pytest.mark.parametrize(("times", "holds"), [(1.25, True), (1.26, False)])
def test_speed_over_the_old_bundle(times: float, holds: bool) -> None:
    slower = replace(CANDIDATE, milliseconds=3.0 * times, reference_milliseconds=100)
    found = gate("speed: processor time a face over the old", slower)
    assert (found.holds, found.measured) == (holds, pytest.approx(times))
    assert f"{3 * times:.2f} ms against 3.00 ms in the same run" in found.reason


@pytest.mark.parametrize(("times", "holds"), [(1.1, True), (1.11, False)])
def test_speed_over_the_reference(times: float, holds: bool) -> None:
    found = gate("speed: processor time a face over the ref", replace(CANDIDATE, milliseconds=3.0 * times))
    assert found.holds is holds


@pytest.mark.parametrize(("times", "holds"), [(3.0, True), (3.01, False)])
def test_speed_of_the_detector_over_yunet(times: float, holds: bool) -> None:
    name = "speed: processor time a picture over YuNet"
    found = gate(name, replace(CANDIDATE, picture_milliseconds=(6.0 * times, 6.0)))
    assert (found.holds, found.measured) == (holds, pytest.approx(times))
    alone = replace(CANDIDATE, picture_milliseconds=None)
    assert "not assessed" in gate(name, alone).reason
    assert not gate(name, alone).holds
    assert gate(name, alone, policy=Policy(times_yunet_most=math.inf)).holds


def test_a_reference_that_is_not_there_fails_unless_it_is_not_asked_for() -> None:
    alone, name = replace(CANDIDATE, reference_milliseconds=None), "speed: processor time a face over the ref"
    assert "not assessed" in gate(name, alone).reason
    assert not gate(name, alone).holds
    assert gate(name, alone, policy=Policy(times_reference_most=math.inf)).holds


@pytest.mark.parametrize(("role", "megabytes", "holds"), [("embedder", 9, True), ("detector", 9.1, False)])
def test_sizes_on_disk(role: str, megabytes: float, holds: bool) -> None:
    found = gate(
        f"size of the {role}", replace(CANDIDATE, sizes={**CANDIDATE.sizes, role: int(megabytes * 1e6)})
    )
    assert (found.holds, found.measured) == (holds, megabytes)
    whole = judge_size(int(megabytes * 1e6), Policy(bundle_megabytes_most=9))
    assert whole.holds is holds


def test_a_bundle_from_research_data_may_not_claim_to_be_commercial() -> None:
    greedy = gate(
        "licence",
        replace(CANDIDATE, licence=COMMERCIAL, terms={"faces": "commercial", "lfw": "research-only"}),
    )
    assert not greedy.holds
    assert "made from research-only data (lfw)" in greedy.reason
    assert gate("licence", replace(CANDIDATE, licence=COMMERCIAL, terms={"faces": "commercial"})).holds
    assert gate("licence", replace(CANDIDATE, licence=RESEARCH, terms={"faces": "commercial"})).holds
    unknown = gate("licence", replace(CANDIDATE, licence=COMMERCIAL, terms={}))
    assert not unknown.holds
    assert "nothing states the terms" in unknown.reason


@pytest.mark.parametrize(
    ("terms", "allowed"),
    [
        ({"faces": "commercial"}, "commercial"),
        ({"faces": "commercial", "wider": "commercial", "a teacher": "commercial"}, "commercial"),
        ({"faces": "commercial", "wider": "research-only"}, "research-only"),
        ({"faces": "commercial", "a teacher": "research-only"}, "research-only"),
        ({"faces": "research-only", "a teacher": "research-only"}, "research-only"),
        ({"faces": "by agreement"}, "research-only"),
        ({}, "research-only"),
    ],
)
@pytest.mark.parametrize("claimed", [RESEARCH, COMMERCIAL])
def test_one_strict_set_or_teacher_binds_them_all(
    terms: dict[str, str], allowed: str, claimed: Licence
) -> None:
    assert strictest(terms) == allowed
    found = gate("licence", replace(CANDIDATE, licence=claimed, terms=terms))
    assert (found.measured, found.required) == (claimed.id, allowed)
    assert found.holds == (claimed == RESEARCH or allowed == "commercial")
    assert all(name in found.reason for name, of in terms.items() if of != "commercial")


def test_a_training_photograph_like_an_evaluation_s_is_refused() -> None:
    found = gate("overlap", replace(CANDIDATE, alike=2))
    assert not found.holds
    assert found.reason == "2 training photographs look like a validation photograph"


def test_floors_and_parity_are_gates_too() -> None:
    fails = Verdict("recall, at least", 0.9, None, False)
    found = gate("floor", replace(CANDIDATE, verdicts=[fails]))
    assert (found.holds, found.measured, found.required) == (False, None, 0.9)
    assert not parity_gate([]).holds
    held = parity_gate(CANDIDATE.rungs)
    assert (held.holds, held.measured) == (True, 0.998)  # of both models
    assert not parity_gate([*CANDIDATE.rungs, Rung("int8", "d.int8.onnx", True, "")]).holds
    refused = parity_gate((), failure="embedder.onnx: cosine 0.5")
    assert (refused.holds, str(refused)) == (False, "parity: embedder.onnx: cosine 0.5")


def rate(promised: float, realised: float, comparisons: int = 100_000) -> dict[str, Any]:
    return {"promised": promised, "realised": realised, "spread": 1e-4, "comparisons_per_test": comparisons}


def test_the_calibration_keeps_its_promise_on_held_out_people_within_a_factor() -> None:
    found = judge_calibration([rate(1e-2, 1.1e-2), rate(1e-3, 1.9e-3)], POLICY)
    assert found.holds
    assert found.measured == pytest.approx(1.9)
    assert found.interval == (pytest.approx(1.7), pytest.approx(2.1))
    json.dumps(found.row(), allow_nan=False)


@pytest.mark.parametrize("realised", [2.1e-3, 0.4e-3, 0.0])
def test_too_many_and_far_too_few_false_matches_both_break_the_promise(realised: float) -> None:
    found = judge_calibration([rate(1e-2, 1e-2), rate(1e-3, realised)], POLICY)
    assert not found.holds
    assert "where 0.001 is promised" in found.reason
    json.dumps(found.row(), allow_nan=False)


def test_a_rate_that_the_held_out_people_do_not_carry_is_no_evidence() -> None:
    """Nine false matches are expected at 1e-4: neither none nor forty would tell."""
    assert judge_calibration([rate(1e-3, 1e-3), rate(1e-4, 0.0, 90_000)], POLICY).holds
    nothing = judge_calibration([rate(1e-4, 1e-4, 90_000)], POLICY)
    assert not nothing.holds
    assert "not assessed" in nothing.reason
    assert judge_calibration([], Policy(realised_over_promised_most=math.inf)).holds


def test_an_infinite_limit_switches_a_gate_off_and_it_says_so() -> None:
    off = Policy(
        fnmr_margin=math.inf,
        recall_margin=math.inf,
        ap_margin=math.inf,
        times_old_most=math.inf,
        times_reference_most=math.inf,
        times_yunet_most=math.inf,
        embedder_megabytes_most=math.inf,
        detector_megabytes_most=math.inf,
    )
    poor = replace(CANDIDATE, milliseconds=1e6, sizes={"embedder": 10**12, "detector": 10**12})
    fall = Interval(-1, -1, -1)
    old = replace(
        OLD, fnmr_difference=Interval(1, 1, 1), recall_difference=fall, ap_differences={"easy": fall}
    )
    judged = judge(poor, old, off)
    assert all(of.holds for of in judged)
    assert sum("the policy sets no limit" in of.reason for of in judged) == 8
    json.dumps([of.row() for of in judged], allow_nan=False)


def test_the_repository_s_policies_are_valid_and_the_default_one_is_that_of_the_code() -> None:
    assert standing_policy(synthetic=False) == Policy()
    drawn = standing_policy(synthetic=True)
    assert math.isinf(drawn.times_reference_most)
    assert math.isinf(drawn.times_yunet_most)
    assert math.isinf(drawn.recall_margin)
    assert math.isinf(drawn.ap_margin)
    assert drawn.bundle_megabytes_most == 20
    assert read_config(Policy, CONFIGS / "synthetic-small" / "gates.toml") == drawn


@pytest.mark.parametrize("text", ["fnmr_margin = -1", "fnmr_margins = 0.1", "[variants]\nfaster_least = 0.5"])
def test_an_impossible_policy_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text(text)
    with pytest.raises(BadConfig, match=r"gates\.toml: (fnmr_margin|variants\.faster_least)"):
        read_config(Policy, tmp_path / "gates.toml")
