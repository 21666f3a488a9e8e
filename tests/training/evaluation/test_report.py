"""The report says what was measured, what was not, and under which terms; its floors are a policy that can fail."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bundle.decode import Detections
from training.evaluation import plots
from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.detection import Recall
from training.evaluation.finding import Finding
from training.evaluation.floors import Floors, judged
from training.evaluation.plots import det, read_metrics
from training.evaluation.recognition import Recognition
from training.evaluation.report import card
from training.evaluation.results import About, Results
from training.evaluation.verification import PairScores

PNG = b"\x89PNG\r\n\x1a\n"


def recognised(name: str) -> Recognition:
    random = np.random.default_rng(1)
    scores = PairScores(random.normal(0.6, 0.15, 500), random.normal(0.1, 0.15, 5000))
    return Recognition(
        name, 0.9712, 0.0021, {1e-2: Interval(0.1, 0.08, 0.12), 1e-3: Interval(0.25, 0.2, 0.3)}, scores
    )


def found(name: str) -> Finding:
    curve = np.linspace(0, 1, 20)
    return Finding(
        name=name,
        at_one=Recall(0.954, 0.31, 830, 394),
        at_tenth=Recall(0.9, 0.6, 830, 394),
        by_height={"10–20 px": (0.2, 900), "≥ 160 px": (float("nan"), 0)},
        precision=1 - curve / 2,
        recall=curve,
        average_precision={"easy": 0.91, "medium": 0.88, "hard": 0.6},
    )


@pytest.fixture(scope="module")
def calibration():
    random = np.random.default_rng(2)
    embedding = np.repeat(random.normal(size=(40, 16)), 3, 0) + 0.5 * random.normal(size=(120, 16))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    models = Models("a" * 64, "b" * 64)
    return fit_calibration(
        embedding.astype(np.float32),
        np.repeat(np.arange(40), 3),
        np.full(120, ""),
        dataset="drawn",
        models=models,
        bootstraps=10,
    )


@pytest.fixture
def results() -> Results:
    ratio = {1e-2: Interval(1.4, 1.2, 1.6), 1e-3: Interval(1.9, 1.5, 2.4)}
    verdicts = judged(Floors(), 0.9712, 1.9, 0.954)
    return Results(
        [recognised("facet"), recognised("reference")],
        ratio,
        [found("facet"), found("YuNet")],
        {"embedder.onnx": {"cosine_least": 1.0}},
        verdicts,
        [],
    )


def about(**changed: object) -> About:
    given = {
        "model_id": "default@1",
        "created": "2026-11-22",
        "synthetic": False,
        "distilled": True,
        "licence": "Research only.",
        "commit": "abc",
        "command": "python -m training publish",
        "datasets": ["faces sha256:00"],
        "steps": {"embedder": 3},
        "figures": {"report-detection.png": "Recall"},
    }
    return About(**{**given, **changed})


def test_the_card_states_terms_leakage_numbers_and_what_was_not_assessed(
    results: Results, calibration
) -> None:
    text = card(about(), results, calibration)
    for said in (
        "# default@1",
        "Research only.",
        "MS1M contains many of LFW's people",
        "the overlap was not assessed beyond that",
        "97.12% ± 0.21%",
        "25.00% (20.00% to 30.00%)",
        "1.90 (1.50 to 2.40)",
        "95.40%",
        "0.910",
        "YuNet",
        "Presentation attacks are not detected",
        "Demographic differences are not assessed",
        "tail fit",
        "![Recall](report-detection.png)",
        "faces sha256:00",
    ):
        assert said in text


def test_a_card_of_drawings_says_that_it_is_one(results: Results, calibration) -> None:
    text = card(about(synthetic=True, licence="Apache-2.0"), results, calibration)
    assert "Made from drawn pictures" in text
    assert "MS1M" not in text


def test_without_references_the_card_has_our_rows_alone(results: Results, calibration) -> None:
    alone = Results(results.recognition[:1], None, results.finding[:1], results.parity, results.verdicts, [])
    text = card(about(), alone, calibration)
    assert "YuNet |" not in text
    assert "| ratio |" not in text


def test_metrics_are_plain_json(results: Results) -> None:
    again = json.loads(json.dumps(results.metrics()))
    assert again["recognition"]["facet"]["validation"]["fnmr@fmr=0.001"] == {
        "value": 0.25,
        "low": 0.2,
        "high": 0.3,
    }
    assert again["detection"]["facet"]["recall@1fp"] == 0.954


@pytest.mark.parametrize(
    ("lfw", "ratio", "recall", "failing"),
    [
        (0.95, 2.5, 0.90, []),
        (0.9499, 1.0, 0.99, ["LFW"]),
        (0.99, 2.51, 0.99, ["FNMR"]),
        (0.99, None, 0.99, ["FNMR"]),
        (0.99, 1.0, 0.89, ["recall"]),
        (0.1, 9.0, 0.1, ["LFW", "recall", "FNMR"]),
    ],
)
def test_floors_fail_one_by_one_and_what_cannot_be_assessed_fails(
    lfw: float, ratio: float | None, recall: float, failing: list[str]
) -> None:
    verdicts = judged(Floors(), lfw, ratio, recall)
    assert [v.floor.split()[0] for v in verdicts if not v.holds] == failing


def test_a_policy_without_a_reference_does_not_ask_for_its_ratio() -> None:
    assert all(v.holds for v in judged(Floors(fnmr_ratio_most=math.inf), 0.99, None, 0.99))


def test_the_det_curve_falls_from_every_pair_to_what_the_pairs_carry() -> None:
    scores = recognised("one").scores
    fmr, fnmr = det(scores.genuine, scores.impostor)
    assert fmr[-1] == 1.0
    assert fmr[0] == pytest.approx(10 / 5000)
    assert (np.diff(fmr) > 0).all()
    assert (np.diff(fnmr) <= 0).all()


def test_every_figure_is_a_png_and_the_same_twice(results: Results, calibration, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 2, "fnmr@0.01": 0.5}\n'
    )
    drawn = [
        lambda: plots.embedder_figure(results.recognition),
        lambda: plots.detector_figure(results.finding),
        lambda: plots.calibration_figure(calibration),
        lambda: plots.training_figure(
            {"embedder": tmp_path / "metrics.jsonl", "detector": tmp_path / "none.jsonl"}
        ),
    ]
    for draw in drawn:
        assert draw()[:8] == PNG
    assert drawn[0]() == drawn[0]()


def test_a_metrics_file_is_read_past_a_cut_line_and_a_step_taken_twice(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 20, "loss": 3.0}\n{"step": 40, "loss": 2.0}\n{"step": 20, "loss": 2.9}\n{"step": 40, "lo'
    )
    assert read_metrics(file) == [{"step": 20, "loss": 2.9}, {"step": 40, "loss": 2.0}]
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_nothing_found_still_draws() -> None:
    nothing = Detections(
        np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
    )
    assert len(nothing) == 0
    empty = Finding(
        "blind",
        Recall(0.0, float("inf"), 0, 1),
        Recall(0.0, float("inf"), 0, 1),
        {},
        np.zeros(0),
        np.zeros(0),
        {},
    )
    assert plots.detector_figure([empty])[:8] == PNG
