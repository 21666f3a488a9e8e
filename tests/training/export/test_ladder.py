"""The ladder lets a form through only for a reason, and says in words why one stays out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle.manifest import DetectorSpec
from bundle.sentinel import sentinel
from tests.training.export.conftest import SLIM
from training.config import BadConfig
from training.data.identities import Faces
from training.detector.train import model_of
from training.evaluation.bootstrap import Interval
from training.export import ladder
from training.export.detector_forms import DetectorBudget, DetectorForms
from training.export.embedder_forms import EmbedderBudget, EmbedderForms
from training.export.ladder import CANONICAL, EXACT, PICTURES, Budget, Ladder, Rung, climb, decide, table
from training.export.onnx import export_detector
from training.export.parity import Agreement, FoundAgreement, ParityFailed
from training.export.sessions import ServedGraph

SAME = Agreement(1.0, 1.0, 1.0, 1e-7, 100)
NEAR = Agreement(0.991, 0.998, 0.993, 0.02, 100)
NO_CHANGE = Interval(0.0, -0.0005, 0.0005)
SPEC = DetectorSpec(canvases=((96, 64),), near_scale=0.0)
BUDGET = EmbedderBudget(faster_least=1.1)


def rungs(fp16: float = 9.0, int8: float = 9.0, **changes: object) -> list[Rung]:
    """10 ms the canonical graph, 4 ms the rewritten; `changes` are of int8."""
    return [
        Rung(CANONICAL, "a.onnx", False, "", SAME, 10.0, 4.0),
        Rung(EXACT, "a.prelu-rewrite.onnx", False, "", SAME, 4.0, 4.0, NO_CHANGE),
        Rung("fp16", "a.fp16.onnx", False, "", SAME, fp16, 2.0, NO_CHANGE),
        replace(Rung("int8", "a.int8.onnx", False, "", NEAR, int8, 1.0, NO_CHANGE), **changes),
    ]


def sound(kind: str) -> list[str]:
    return []


def decided(of: list[Rung]) -> dict[str, Rung]:
    return {rung.kind: rung for rung in decide(of, BUDGET, sound)}


def test_what_is_slower_than_what_would_be_served_stays_out() -> None:
    told = decided(rungs())
    assert [of.kind for of in told.values() if of.published] == [CANONICAL, EXACT]
    assert told[EXACT].reason == "2.50 × faster than onnx"
    assert told["int8"].reason == "not 1.1 × faster than prelu-rewrite: 9.00 ms a face against 4.00"


def test_what_is_faster_and_within_the_budget_is_published() -> None:
    told = decided(rungs(int8=2.0))
    assert told["int8"].published
    assert told["int8"].reason == "2.00 × faster than prelu-rewrite"
    assert not told["fp16"].published


def test_a_little_faster_is_not_enough() -> None:
    assert not decided(rungs(int8=3.7))["int8"].published
    assert decided(rungs(int8=3.6))["int8"].published


def test_each_form_must_beat_the_best_so_far() -> None:
    told = decided(rungs(fp16=2.0, int8=3.0))
    assert told["fp16"].published
    assert told["int8"].reason.startswith("not 1.1 × faster than fp16")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agreement": replace(NEAR, cosine_p1=0.989)}, "cosine 0.9890 at the 1st percentile, least 0.99"),
        ({"agreement": replace(NEAR, difference_most=np.inf)}, "not finite numbers"),
        ({"agreement": None}, "not finite numbers"),
        ({"difference": Interval(0.0, -0.001, 0.0011)}, "may rise by 0.110% (upper bound), most 0.100%"),
        ({"difference": None}, "the faces do not carry FMR 0.001"),
    ],
)
def test_what_costs_too_much_stays_out_however_fast(changes: dict[str, object], reason: str) -> None:
    told = decided(rungs(int8=1.0, **changes))["int8"]
    assert not told.published
    assert reason in told.reason
    json.dumps(told.row(), allow_nan=False)


def test_every_reason_is_told() -> None:
    told = decided(rungs(difference=None, agreement=replace(NEAR, cosine_p1=0.5)))["int8"]
    assert len(told.reason.split("; ")) == 3


def test_a_wrong_answer_to_the_sentinel_keeps_a_form_out() -> None:
    told = decide(rungs(int8=1.0), BUDGET, lambda kind: ["swapped"] if kind == "int8" else [])
    assert [(of.kind, of.reason) for of in told if "swapped" in of.reason] == [("int8", "swapped")]


def test_a_rewritten_graph_that_is_not_exact_ends_the_export() -> None:
    wrong = rungs()
    wrong[1] = replace(wrong[1], agreement=NEAR)
    with pytest.raises(ParityFailed, match=r"a\.prelu-rewrite\.onnx: cosine 0\.991"):
        decide(wrong, BUDGET, sound)


def test_the_table_has_a_line_a_form_and_says_no_and_why() -> None:
    lines = table([*decided(rungs()).values(), Rung("fp16", "b.onnx", False, "cannot be made")]).splitlines()
    assert len(lines) == 2 + 5
    assert {line.count("|") for line in lines} == {10}
    assert "yes: the model itself" in lines[2]
    assert "no: not 1.1 × faster" in lines[5]
    assert "+0.000% (-0.050% to +0.050%)" in lines[5]
    assert lines[6].endswith("| no: cannot be made |")


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds by kind, set by a test: none depends on how fast this machine is."""
    told = {CANONICAL: 10.0, EXACT: 4.0, "fp16": 5.0, "int8": 6.0}
    monkeypatch.setattr(ladder, "milliseconds", lambda calls: {kind: told[kind] for kind in calls})
    return told


BUDGET_OF_DRAWN = EmbedderBudget(fmr=1e-2, int8_pictures=8, fnmr_most=1)


def forms_of(pair, faces: Faces, folder: Path) -> EmbedderForms:
    path = folder / "embedder.onnx"
    if not path.is_file():
        path.write_bytes(pair.graph.path.read_bytes())
    graph = ServedGraph(path)
    guard = sentinel(lambda crops: graph.run(crops)[0])
    return EmbedderForms(pair.module, graph, guard, faces, BUDGET_OF_DRAWN.fmr, folder / "cache")


def climbed(pair, faces: Faces, folder: Path, budget: Budget = BUDGET_OF_DRAWN) -> Ladder:
    return climb(forms_of(pair, faces, folder), budget)


def test_every_form_is_made_measured_and_decided(tiny, many_faces: Faces, tmp_path: Path, paced) -> None:
    climb = climbed(tiny, many_faces, tmp_path)
    assert [of.kind for of in climb.rungs] == [CANONICAL, EXACT, "fp16", "int8"]
    assert [of.published for of in climb.rungs] == [True, True, False, False]
    assert climb.served.path.name == "embedder.prelu-rewrite.onnx"
    assert [of.kind for of in climb.variants] == [EXACT]
    canonical, exact, half, small = climb.rungs
    assert canonical.difference is None
    assert exact.difference == Interval(0, 0, 0)
    assert half.agreement.cosine_least > 0.999
    assert small.agreement.cosine_mean > 0.98
    assert canonical.megabytes >= half.megabytes
    assert small.difference.low <= small.difference.value <= small.difference.high
    json.dumps([of.row() for of in climb.rungs], allow_nan=False)


def test_the_fastest_that_passes_is_served_and_named_first(
    tiny, many_faces: Faces, tmp_path: Path, paced
) -> None:
    paced["fp16"] = 1.0
    climb = climbed(tiny, many_faces, tmp_path)
    assert climb.served.path.name == "embedder.fp16.onnx"
    assert [of.kind for of in climb.variants] == ["fp16", EXACT]
    cost = climb.variants[0].cost(10.0)
    assert (cost["milliseconds_a_face"], cost["milliseconds_a_face_before"]) == (1.0, 10.0)
    assert "fnmr_difference_high" in cost


def test_faces_too_few_for_the_rate_keep_the_lossy_forms_out(
    tiny, drawn_faces: Faces, tmp_path: Path, paced
) -> None:
    paced["int8"] = 0.1
    climb = climbed(tiny, drawn_faces, tmp_path)
    assert "the faces do not carry FMR 0.01" in climb.rungs[3].reason
    assert climb.served.path.name == "embedder.prelu-rewrite.onnx"


def test_a_graph_without_prelu_has_three_forms_and_the_reason_for_the_fourth(
    tiny, many_faces: Faces, tmp_path: Path, paced
) -> None:
    """Every slope 0 written as ReLU: nothing to rewrite, and the others start from the canonical graph."""
    model = onnx.load(tiny.graph.path)
    for node in model.graph.node:
        if node.op_type == "PRelu":
            node.op_type = "Relu"
            del node.input[1]
    onnx.save(model, tmp_path / "embedder.onnx")
    forms = forms_of(tiny, many_faces, tmp_path)
    files, missing = ladder._made(forms, BUDGET_OF_DRAWN)
    assert set(files) == {"fp16", "int8"}
    assert [(of.kind, of.reason) for of in missing] == [
        (EXACT, "embedder.onnx holds no PReLU with a constant slope")
    ]
    assert forms.faults(ServedGraph(files["fp16"])) == []


def test_a_form_that_answers_the_sentinel_as_another_model_would_is_at_fault(
    tiny, embedder, many_faces: Faces, tmp_path: Path
) -> None:
    (fault,) = forms_of(tiny, many_faces, tmp_path).faults(embedder.graph)
    assert "answers 32 numbers, the bundle says 16" in fault


def test_an_unknown_layer_to_exclude_ends_the_export(tiny, many_faces: Faces, tmp_path: Path, paced) -> None:
    with pytest.raises(BadConfig, match="no layer /typo"):
        climbed(tiny, many_faces, tmp_path, BUDGET_OF_DRAWN.model_copy(update={"int8_exclude": ("/typo",)}))


FOUND = FoundAgreement(0.95, 0.97, 0.02, 0.01, 0.0, 300)
OF_PICTURES = DetectorBudget()


def pictured(milliseconds: float = 5.0, **changes: object) -> Rung:
    """A detector's int8, decided beside a canonical graph of 10 ms."""
    of = Rung("int8", "d.int8.onnx", False, "", FOUND, milliseconds, 1.0, NO_CHANGE, told=PICTURES)
    canonical = Rung(CANONICAL, "d.onnx", False, "", FOUND, 10.0, 4.0, told=PICTURES)
    return decide([canonical, replace(of, **changes)], OF_PICTURES, sound)[1]


def test_a_detector_s_form_is_published_where_it_is_faster_and_finds_as_much() -> None:
    told = pictured()
    assert told.published
    assert told.reason == "2.00 × faster than onnx"
    cost = told.cost(10.0)
    assert (cost["milliseconds_a_picture"], cost["recall_difference_low"]) == (5.0, -0.0005)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"milliseconds": 9.9}, "not 1.05 × faster than onnx: 9.90 ms a picture against 10.00"),
        ({"difference": None}, "the pictures carry no interval of recall"),
        ({"difference": Interval(-0.001, -0.0051, 0.0)}, "may fall by 0.510% (upper bound), most 0.500%"),
        ({"agreement": replace(FOUND, points_p99=0.04)}, "landmarks move by 4.0% of a face"),
        ({"agreement": replace(FOUND, missing=1.0)}, "not finite numbers"),
    ],
)
def test_a_detector_s_form_that_costs_too_much_or_is_slow_stays_out(
    changes: dict[str, object], reason: str
) -> None:
    told = pictured(**changes)
    assert not told.published
    assert reason in told.reason
    json.dumps(told.row(), allow_nan=False)


def test_a_gain_of_recall_is_no_reason_against_a_form() -> None:
    assert pictured(difference=Interval(0.02, 0.01, 0.03)).published


def test_the_detector_s_forms_are_made_measured_on_selection_and_decided(
    detector, drawn_sets, tmp_path: Path, paced
) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(detector.graph.path.read_bytes())
    root = drawn_sets.root / "wider"
    forms = DetectorForms(detector.module, ServedGraph(path), SPEC, root, tmp_path / "cache")
    ladder = climb(forms, DetectorBudget(int8_pictures=4))
    assert [of.kind for of in ladder.rungs] == [CANONICAL, "fp16", "int8", EXACT]
    assert [of.published for of in ladder.rungs] == [True, False, False, False]
    assert ladder.rungs[-1].reason == "detector.onnx holds no PReLU with a constant slope"
    assert ladder.served.path == path
    canonical, half, small, _ = ladder.rungs
    assert canonical.agreement is not None
    assert canonical.agreement.exact
    assert half.megabytes < canonical.megabytes
    assert "carry no interval of recall" in small.reason  # two pictures are drawn for selection
    head = table(ladder.rungs).splitlines()[0]
    assert "ms a picture" in head
    assert "recall difference" in head
    json.dumps([of.row() for of in ladder.rungs], allow_nan=False)


def test_no_detector_is_served_that_is_not_the_trained_one(detector, drawn_sets, tmp_path: Path) -> None:
    other = export_detector(model_of(SLIM).eval(), tmp_path / "other.onnx")
    forms = DetectorForms(other, detector.graph, SPEC, drawn_sets.root / "wider", tmp_path / "cache")
    with pytest.raises(ParityFailed, match=r"detector\.onnx: score off by"):
        climb(forms, DetectorBudget())
