"""The report says what was measured, what was not, and under which terms; its floors are a policy that can fail."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle.calibration import Threshold
from tests.training.evaluation.drawn_detection import drawn_results
from tests.training.evaluation.drawn_recognition import measured
from training.config import BadConfig, read_config
from training.evaluation import plots, thresholds_report
from training.evaluation.ablations import Ablation
from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.detection import Recall
from training.evaluation.detectors import OURS, DetectorResults
from training.evaluation.finding import Finding
from training.evaluation.floors import Floors, judged
from training.evaluation.plots import read_metrics
from training.evaluation.recognition import Disjoint, Overlap, Recognition
from training.evaluation.recorded import RecordedDetection
from training.evaluation.report import card
from training.evaluation.results import About, Results
from training.loop.records import FaceRecord, Record, TeacherRecord, learnt_from

PROMISE = [
    {
        "persons": persons,
        "promised": asked,
        "realised": asked * 0.8 if persons < 800 or asked > 0.01 else None,
        "low": asked * 0.5,
        "high": asked * 1.2,
        "spread": 0.001,
        "extrapolated": asked < 0.1,
        "unsupported": 0,
        "probes": 4000,
        "gallery_in_fit": persons == 800,
    }
    for persons in (10, 300, 800)
    for asked in (0.1, 0.01)
]
ABLATIONS = [
    Ablation(
        name="whole",
        identities=7000,
        faces=34000,
        steps=900,
        distilled=True,
        fnmr=Interval(0.2, 0.1, 0.3),
        lfw=0.9671,
        lfw_error=0.0025,
    ),
    Ablation(
        name="labels", identities=7000, faces=34000, steps=900, distilled=False, fnmr=Interval(0.5, 0.4, 0.6)
    ),
    Ablation(
        name="half", identities=3500, faces=17000, steps=900, distilled=False, fnmr=Interval(0.6, 0.5, 0.7)
    ),
]
PNG = b"\x89PNG\r\n\x1a\n"


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


@pytest.fixture(scope="module")
def people() -> list[Recognition]:
    return measured()[0]


@pytest.fixture
def results(people: list[Recognition]) -> Results:
    ratio = {1e-2: Interval(1.4, 1.2, 1.6), 1e-3: Interval(1.9, 1.5, 2.4)}
    verdicts = judged(Floors(), 0.9712, 1.9, 0.954)
    return Results(
        people,
        ratio,
        drawn_results(),
        {"embedder.onnx": {"cosine_least": 1.0}},
        verdicts,
        0,
    )


FACES = FaceRecord(
    name="faces", identities=7000, faces=34000, digest="0f", labels="official", sources=("fiw", "drawn")
)
TEACHER = TeacherRecord(name="MobileFaceNet.onnx", sha256="1e")
DOORS = Record(
    name="doors",
    pictures=9,
    faces=0,
    names="2d",
    labels="pseudo, by scrfd.onnx",
    terms="licence: commercial; ours",
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
        "records": {"embedder": (FACES, TEACHER), "detector": (DOORS,)},
        "sets": {"faces": "agreed", "lfw": "not stated", "wider": "not stated", "masks": "ask first"},
    }
    return About(**{**given, **changed})


def test_the_card_states_terms_leakage_numbers_and_what_was_not_assessed(
    results: Results, calibration
) -> None:
    text = card(about(), results, calibration)
    ours = results.recognition[0]
    rate = ours.fnmr[1e-3]
    for said in (
        "# default@1",
        "Research only.",
        "MS1M contains many of LFW's people",
        "Whether the training set has people of the evaluation sets was not assessed",
        "- embedder: faces: 7,000 identities, 34,000 faces of Families in the Wild, drawn; official; terms: not stated",
        f"- embedder: {TEACHER}",
        "- detector: doors: 9 pictures, 0 boxed faces; pseudo, by scrfd.onnx; terms: licence: commercial; ours",
        "for thresholds alone, of even, odd; terms: agreed",
        "- `masks`: terms: ask first",
        f"{ours.lfw:.2%} ± {ours.on_lfw.error:.2%}",
        f"{rate.value:.2%} ({rate.low:.2%} to {rate.high:.2%})",
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
    assert f"- detector: {DOORS}" in section(text, "## Data")
    assert "MS1M" not in text


def test_a_card_says_no_more_of_the_data_than_was_recorded(results: Results, calibration) -> None:
    """Somebody's own data, a teacher of their own, and none: nothing of Facet's own sets is said."""
    own = about(distilled=False, licence="Commercial use is allowed.", sets={})
    data = section(card(own, results, calibration), "## Data")
    for strange in ("MS1M", "CelebA", "research terms", "YuNet", "WIDER FACE", "2 %"):
        assert strange not in data
    assert "whom that teacher has seen, this model has seen indirectly" in data
    alone = about(distilled=False, records={"embedder": learnt_from({"step": 1215}, Path())})
    data = section(card(alone, results, calibration), "## Data")
    assert "- embedder: not recorded: unknown, of the first 1,215 steps; terms: not stated" in data
    assert "teacher" not in data


def test_without_references_the_card_has_our_rows_alone(results: Results, calibration) -> None:
    detection = DetectorResults(results.detection.findings[:1])
    alone = Results(results.recognition[:1], None, detection, results.parity, results.verdicts, 0)
    text = card(about(), alone, calibration)
    assert "YuNet |" not in text
    assert "| ratio |" not in text


def test_metrics_are_plain_json(results: Results) -> None:
    again = json.loads(json.dumps(results.metrics()))
    assert again["recognition"]["facet"]["validation"]["fnmr@fmr=0.001"] == vars(
        results.recognition[0].fnmr[1e-3]
    )
    assert again["recognition"]["fnmr_ratio@fmr=0.001"] == {"value": 1.9, "low": 1.5, "high": 2.4}
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
    floors = Floors(lfw_least=0.95, fnmr_ratio_most=2.5, recall_least=0.90, ap_over_yunet_least=math.inf)
    verdicts = judged(floors, lfw, ratio, recall)
    assert [v.floor.split()[0] for v in verdicts if not v.holds] == failing


def test_a_policy_without_a_reference_does_not_ask_for_its_ratio() -> None:
    assert all(v.holds for v in judged(Floors(fnmr_ratio_most=math.inf), 0.99, None, 0.99, 0.0))


@pytest.mark.parametrize("off", [math.inf, -math.inf])
def test_an_infinite_floor_is_not_asked_for_whatever_was_measured(off: float) -> None:
    none = Floors(lfw_least=off, fnmr_ratio_most=math.inf, recall_least=off, ap_over_yunet_least=off)
    assert judged(none, 0.1, 9.0, 0.1) == judged(none, None, None, 0.1) == []


@pytest.mark.parametrize(
    ("less", "asked", "holds"), [(0.0, 0, True), (-0.001, 0, False), (-0.01, -0.02, True), (None, 0, False)]
)
def test_the_detector_may_be_held_to_the_reference_s_ap(
    less: float | None, asked: float, holds: bool
) -> None:
    floors = Floors(lfw_least=math.inf, fnmr_ratio_most=math.inf, ap_over_yunet_least=asked)
    of = judged(floors, None, None, 0.99, less)[-1]
    assert (of.measured, of.asked, of.holds) == (less, asked, holds)
    assert of.floor == "smallest difference of AP to YuNet's at VGA with one view, at least"


def test_a_difference_of_ap_is_no_percentage(tmp_path: Path) -> None:
    (tmp_path / "floors.toml").write_text("ap_over_yunet_least = -2\n")
    with pytest.raises(BadConfig, match=r"ap_over_yunet_least: a difference of -1 to 1 is expected, or inf"):
        read_config(Floors, tmp_path / "floors.toml")


def test_pairs_that_are_not_there_fail_their_floor() -> None:
    (verdict, *_) = judged(Floors(), None, 1.0, 0.99)
    assert not verdict.holds
    assert str(verdict) == "LFW accuracy, at least: not assessed, floor 0.98: FAILS"


@pytest.mark.parametrize("value", ["1.01", "-0.1", "nan", "98"])
def test_a_floor_that_is_no_share_is_refused_by_name(value: str, tmp_path: Path) -> None:
    (tmp_path / "floors.toml").write_text(f"lfw_least = {value}\n")
    with pytest.raises(BadConfig, match="lfw_least: a share of 0 to 1 is expected, or inf"):
        read_config(Floors, tmp_path / "floors.toml")


FIGURES = {
    "embedder": lambda results, _calibration, _folder: plots.embedder_figure(results.recognition),
    "identification": lambda results, _calibration, _folder: plots.identification_figure(results.recognition),
    "promise": lambda _results, _calibration, _folder: plots.promise_figure({"held_out_fpir": PROMISE}),
    "ablation": lambda _results, _calibration, _folder: plots.ablation_figure(ABLATIONS),
    "detector": lambda results, _calibration, _folder: plots.detector_figure(results.detection),
    "calibration": lambda _results, calibration, _folder: plots.calibration_figure(calibration),
    "training": lambda _results, _calibration, folder: plots.training_figure(
        {"embedder": folder / "metrics.jsonl", "detector": folder / "none.jsonl"}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png(name: str, results: Results, calibration, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 2, "fnmr@0.01": 0.5}\n'
    )
    assert FIGURES[name](results, calibration, tmp_path)[:8] == PNG


def test_trainings_without_lfw_have_a_figure_without_it() -> None:
    width = [int.from_bytes(plots.ablation_figure(of)[16:20], "big") for of in (ABLATIONS, ABLATIONS[1:])]
    assert width[0] > 1.5 * width[1]


def test_a_figure_is_the_same_twice() -> None:
    assert plots.ablation_figure(ABLATIONS) == plots.ablation_figure(ABLATIONS)


def test_a_metrics_file_is_read_past_a_cut_line_and_a_step_taken_twice(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 20, "loss": 3.0}\n{"step": 40, "loss": 2.0}\n{"step": 20, "loss": 2.9}\n{"step": 40, "lo'
    )
    assert read_metrics(file) == [{"step": 20, "loss": 2.9}, {"step": 40, "loss": 2.0}]
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_nothing_found_still_draws() -> None:
    none = Recall(0.0, float("inf"), 0, 1)
    empty = Finding(OURS, "VGA", none, none, {}, np.zeros(0), np.zeros(0), {}, {})
    assert plots.detector_figure(DetectorResults([empty]))[:8] == PNG


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next."""
    lines = text.split("\n")
    start = lines.index(title)
    rest = [at for at in range(start + 1, len(lines)) if lines[at].startswith("#")]
    return "\n".join(lines[start : rest[0] if rest else None])


def test_the_summary_comes_first_and_says_the_main_figures(results: Results, calibration) -> None:
    text = card(about(), replace(results, promise={"held_out_fpir": PROMISE}), calibration)
    headings = [line for line in text.split("\n") if line.startswith("## ")]
    assert headings[0] == "## Summary"
    summary = section(text, "## Summary")
    assert f"{results.recognition[0].lfw:.2%}" in summary
    assert "1.90 times the reference's" in summary
    assert "galleries of 10 to 300 people" in summary  # of 800 nothing is known at that rate
    assert "not assessed" in summary
    assert len(summary.split("\n")) < 12


def test_figures_of_people_whom_the_teacher_saw_are_marked_and_others_are_not(
    results: Results, calibration
) -> None:
    marked = "distilled: the teacher saw some of these people"
    distilled = card(about(), results, calibration)
    for title in ("## Summary", "## Recognition", "### All pairs of LFW's pictures", "### One to many"):
        assert marked in section(distilled, title)
    for other in (about(distilled=False), about(synthetic=True)):
        assert marked not in card(other, results, calibration)


def test_vectors_that_are_not_served_are_one_line_and_no_more(results: Results, calibration) -> None:
    text = card(about(), results, calibration)
    assert text.count("| facet, flip |") == 1
    assert "Not as served, for comparison only: facet, flip." in text
    assert "no flip" in section(text, "## Recognition")


def test_one_to_many_has_a_line_for_each_gallery_and_a_dash_for_what_is_not_carried(
    results: Results, calibration
) -> None:
    part = section(card(about(), results, calibration), "### One to many")
    rows = [line.split(" | ") for line in part.split("\n") if line.startswith("| facet |")]
    assert [(row[1], row[2]) for row in rows] == [("LFW", "120"), ("validation", "50")]
    assert [row[5] for row in rows] == ["–", "–"]
    search = results.recognition[0].on_lfw.search
    assert search is not None
    assert rows[0][3].startswith(f"{search.fnir[0.1].value:.2%}")


def test_overlap_is_not_assessed_or_none_or_told_twice(results: Results, calibration) -> None:
    title = "### Without people who overlap the training set"
    assert "Not assessed." in section(card(about(), results, calibration), title)
    nobody = replace(results, overlap=Overlap(frozenset(), frozenset(), "cosine above 0.5"))
    told = section(card(about(), nobody, calibration), title)
    assert "(cosine above 0.5): 0 of LFW, 0 of `validation`." in told
    assert "without overlap" not in told
    ours = results.recognition[0]
    better = replace(
        ours, disjoint=Disjoint(replace(ours.on_lfw, accuracy=0.5), {1e-3: Interval(0.25, 0.2, 0.3)})
    )
    some = replace(
        results, recognition=[better], overlap=Overlap(frozenset({"A_B"}), frozenset({3}), "by eye")
    )
    text = card(about(), some, calibration)
    rows = [line for line in section(text, title).split("\n") if line.startswith("| facet |")]
    assert [f"{ours.lfw:.2%}" in rows[0], "50.00%" in rows[1], "25.00%" in rows[1]] == [True] * 3
    assert "A_B" not in text
    assert "was not assessed; some may be in both" not in text


def test_groups_are_not_assessed_and_sources_are(results: Results, calibration) -> None:
    part = section(card(about(), results, calibration), "### By group")
    assert "Differences by age, sex or skin are not assessed" in part
    assert "| odd | 40 | 160 | 240 |" in part
    assert "Largest over smallest FNMR:" in part
    ours = results.recognition[0]
    bare = replace(ours, on_validation=replace(ours.on_validation, sources=[]))
    assert "By source: not assessed" in card(about(), replace(results, recognition=[bare]), calibration)


def test_other_trainings_are_not_measured_or_a_table(results: Results, calibration) -> None:
    title = "### More data, and the teacher"
    assert "Not measured." in section(card(about(), results, calibration), title)
    part = section(card(about(), replace(results, ablations=ABLATIONS), calibration), title)
    assert "| labels | 7,000 | 34,000 | 900 | no | 50.00% (40.00% to 60.00%) | – |" in part
    assert "| whole | 7,000 | 34,000 | 900 | yes | 20.00% (10.00% to 30.00%) | 96.71% ± 0.25% |" in part
    seen = "the teacher saw some of LFW's people"
    assert seen in part
    alone = replace(results, ablations=ABLATIONS[1:])
    assert seen not in section(card(about(), alone, calibration), title)


def test_the_simulation_is_a_line_for_each_gallery(results: Results, calibration) -> None:
    text = card(about(), replace(results, promise={"held_out_fpir": PROMISE}), calibration)
    assert "| 10 | 4,000 | 0.08 (0.05 to 0.12) | 0.008 (0.005 to 0.012) * |" in text
    assert "| 800 † | 4,000 | 0.08 (0.05 to 0.12) | – |" in text


def test_unmatched_detections_below_forty_pixels_are_said_to_be_passed_over(
    results: Results, calibration
) -> None:
    assert "found boxes under that height that match nothing are passed over" in card(
        about(), results, calibration
    )


def test_the_card_names_the_architectures(results: Results, calibration) -> None:
    assert "a face embedder (IResNet-50)" in card(about(embedder="IResNet-50"), results, calibration)


RECORDED = RecordedDetection.of(
    "elder@7",
    "b2" * 32,
    {"facet": {"recall@1fp": 0.9188, "scale": "VGA"}},
    "# elder@7\n\n## Detection\n\nFigures of old.\n\n### By height\n\nTall ones.\n\n## Thresholds\n\nNone.\n",
)


def test_a_detector_that_was_taken_over_is_told_in_its_bundle_s_words(results: Results, calibration) -> None:
    taken = replace(results, detection=RECORDED, alike=2)
    text = card(about(steps={"embedder": 3, "detector": 3360}), taken, calibration)
    source = f"elder@7 (sha256 {'b2' * 32})"
    assert (
        f"- detector: taken over from {source}, measured when that was published: finds 91.88% of the faces of at "
        "least 40 pixels at one false positive a picture (VGA)\n"
    ) in section(text, "## Summary")
    told = section(text, "## Detection")
    assert told.startswith(
        f"## Detection\n\n**Taken over** from {source}, byte for byte, and measured when that was "
    )
    assert "nothing of it was measured anew" in told
    assert "Figures of old." in told
    assert section(text, "### By height").split("\n", 2)[2].strip() == "Tall ones."
    assert "(difference hash), as elder@7 recorded it: 2." in section(text, "## Data")
    assert "on 394 validation pictures" not in text
    assert f"detector 3,360 steps, taken over from {source})" in section(text, "## Made with")
    kept = json.loads(json.dumps(taken.metrics()))
    assert kept["detection"]["facet"] == {"recall@1fp": 0.9188, "scale": "VGA"}
    assert kept["detection"]["taken_over"] == {"from": "elder@7", "sha256": "b2" * 32}


def test_without_pairs_the_card_says_that_they_were_not_assessed(results: Results, calibration) -> None:
    alone = [replace(of, on_lfw=None) for of in results.recognition]
    text = card(about(), replace(results, recognition=alone, lfw_measured=0), calibration)
    assert "- ten folds of LFW: not assessed, there are no pairs\n" in section(text, "## Summary")
    assert "Ten folds: not assessed" in section(text, "## Recognition")
    assert "| facet | – |" in section(text, "## Recognition")
    assert "Not assessed: there are no such pictures." in section(text, "### All pairs of LFW's pictures")
    searched = section(text, "### One to many")
    assert "| facet | validation | 50 |" in searched
    assert "LFW" not in searched
    assert "read the LFW figures" not in text
    some = replace(results, recognition=alone, overlap=Overlap(None, frozenset({3}), "by eye"))
    told = section(
        card(about(distilled=False), some, calibration), "### Without people who overlap the training set"
    )
    assert "(by eye): 1 of `validation`." in told
    assert "LFW's" not in told


def test_a_pack_gives_ten_folds_alone(results: Results, calibration) -> None:
    pack = [replace(of, on_lfw=replace(of.on_lfw, named=None)) for of in results.recognition]
    text = card(about(), replace(results, recognition=pack), calibration)
    assert f"{results.recognition[0].lfw:.2%}" in section(text, "## Summary")
    assert "does not tell who is on its pictures" in section(text, "### All pairs of LFW's pictures")


def test_thresholds_say_how_sure_they_are_measured_or_not(results: Results, calibration) -> None:
    at = [calibration.threshold_for_fmr(calibration.floor * part).value for part in (1, 0.1, 0.0101)]
    tail = [
        {"threshold": t, "rate": r, "low": r / 2, "high": r * 3}
        for t, r in zip(at, (calibration.floor * part for part in (1, 0.1, 0.0101)), strict=True)
    ]
    text = card(about(), replace(results, promise={"tail": tail}), calibration)
    rows = [
        line.strip("| ").split(" | ") for line in section(text, "## Thresholds").split("\n") if "| 0" in line
    ]
    told = {float(row[0]): (row[2], row[3]) for row in rows}
    assert told[1e-3][1] == "tail fit"
    low, high = map(float, told[1e-3][0].split(" to "))
    assert (low, high) == (pytest.approx(5e-4, rel=0.1), pytest.approx(3e-3, rel=0.1))
    curve = calibration.curves[0]
    assert told[0.01][1] == ("measured" if curve.carries(0.01) else "tail fit")


def test_a_measured_threshold_has_the_curve_s_band(calibration) -> None:
    curve = calibration.curves[0]
    place = len(curve.rates) // 2
    at = Threshold(curve.thresholds[place], extrapolated=False)
    low, high = thresholds_report._band(calibration, {}, at)
    assert low == pytest.approx(curve.low[place])
    assert high == pytest.approx(curve.high[place])
    beyond = Threshold(curve.thresholds[-1] + 0.01, extrapolated=True)
    assert thresholds_report._band(calibration, {}, beyond) is None
    nothing = {
        "tail": [{"threshold": 0.0, "low": 0.0, "high": 1e-3}, {"threshold": 1.0, "low": 0.0, "high": 1e-3}]
    }
    assert thresholds_report._band(calibration, nothing, beyond) == (0.0, pytest.approx(1e-3))


@pytest.mark.parametrize("name", ["embedder", "identification"])
def test_figures_without_pairs_have_no_panel_for_them(name: str, results: Results) -> None:
    draw = getattr(plots, f"{name}_figure")
    alone = [replace(of, on_lfw=None) for of in results.recognition]
    whole, part = draw(results.recognition), draw(alone)
    assert part[:8] == PNG
    assert whole[16:24] != part[16:24]  # width and height


@pytest.mark.parametrize("name", ["embedder", "identification", "promise", "ablation"])
def test_figures_of_nothing_still_draw(name: str, results: Results) -> None:
    ours = results.recognition[0]
    bare = replace(
        ours,
        on_lfw=replace(ours.on_lfw, named=replace(ours.on_lfw.named, search=None, fnmr={})),
        on_validation=replace(ours.on_validation, galleries=[]),
    )
    draw = {
        "embedder": lambda: plots.embedder_figure([bare]),
        "identification": lambda: plots.identification_figure([bare]),
        "promise": lambda: plots.promise_figure({}),
        "ablation": lambda: plots.ablation_figure([]),
    }
    assert draw[name]()[:8] == PNG


def test_a_file_that_names_some_floors_keeps_the_default_bundle_s_for_the_others(tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[3]
    assert Floors() == read_config(Floors, repository / "training" / "configs" / "floors.toml")
    some = tmp_path / "floors.toml"
    some.write_text("fnmr_ratio_most = inf\n")
    assert read_config(Floors, some).lfw_least == Floors().lfw_least
