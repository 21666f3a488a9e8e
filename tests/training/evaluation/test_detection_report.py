"""Every figure of the detector's part says its scale, and what is not comparable, or not annotated, is said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.evaluation.drawn_detection import drawn_finding, drawn_results
from tests.training.evaluation.test_aligned import OURS as THROUGH_OURS
from tests.training.evaluation.test_aligned import YUNET
from training.evaluation.aligned import Aligned
from training.evaluation.detection_report import PUBLISHED, detection_part, summary_line
from training.evaluation.detectors import ONE_VIEW, OURS, DetectorResults
from training.evaluation.scales import ORIGINAL, VGA


def part_of(text: str, title: str) -> str:
    return text.split(f"{title}\n", 1)[1].split("\n#", 1)[0]


def test_every_line_of_average_precision_is_tagged_with_its_scale() -> None:
    part = part_of(detection_part(drawn_results()), "### WIDER FACE's own evaluation")
    rows = [line.split(" | ") for line in part.split("\n") if line.startswith("| ")][2:]
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        ("facet", "VGA"),
        ("facet, one view", "VGA"),
        ("YuNet", "VGA"),
        ("ours less the reference's", "VGA"),
        ("facet, one view", "original size"),
        ("YuNet", "original size"),
        ("ours less the reference's", "original size"),
    ]
    assert "-0.030 (-0.040 to -0.020)" in part
    assert "0.911, 0.881, 0.601 at VGA" in part  # in whole numbers


def test_published_figures_are_marked_as_of_another_set_and_cited() -> None:
    part = part_of(detection_part(drawn_results()), "### Beside published figures")
    assert "Another set and another protocol" in part
    assert "| SCRFD-2.5G | VGA | 0.938 | 0.922 | 0.779 | -0.028, -0.042, -0.179 at VGA | Guo" in part
    assert "multi-scale" not in part  # ours was not measured at it
    assert all(one.source for one in PUBLISHED)


def test_nothing_published_is_of_drawings() -> None:
    assert (
        "published"
        not in detection_part(drawn_results(), drawn=True).split("### By height")[0].split("AP hard")[0]
    )
    assert "### Beside published figures" not in detection_part(drawn_results(), drawn=True)


def test_heights_are_told_at_each_scale_and_empty_ones_left_out() -> None:
    part = part_of(detection_part(drawn_results()), "### By height")
    assert part.count("| 8–16 px | 20.0%, 0.150 |") == 2
    assert "≥ 256" not in part
    assert f"At {ORIGINAL.name}:" in part


def test_points_are_said_to_be_of_a_detector() -> None:
    part = part_of(detection_part(drawn_results()), "### Landmarks")
    assert "Not against people's annotations" in part
    assert "| facet | VGA | 0.061 | 0.143 | 500 | 520 | YuNet, original size |" in part


def test_what_was_not_measured_is_said() -> None:
    text = detection_part(DetectorResults([drawn_finding(OURS)]))
    for title in ("### Faces that fill the frame", "### Landmarks", "### Pictures without faces"):
        assert part_of(text, title).strip().startswith("Not assessed")


def test_false_finds_have_a_line_for_each_source() -> None:
    part = part_of(detection_part(drawn_results()), "### Pictures without faces")
    assert "| drawn | 40 | 0.25 / 0.03 | 0.25 / 0.03 | 0.25 / 0.03 |" in part
    assert "| scikit-image | 14 | 0.50 / 0.00 |" in part


def test_the_summary_says_recall_scale_and_the_difference() -> None:
    line = summary_line(drawn_results())
    assert "95.40%" in line
    assert "(VGA)" in line
    assert "hard +0.100 (+0.000 to +0.200)" in line
    assert "less the reference's" not in summary_line(replace(drawn_results(), differences={}))


@pytest.mark.parametrize("name", [OURS, ONE_VIEW])
def test_the_manifest_keeps_what_the_report_says(name: str) -> None:
    kept = drawn_results().metrics()
    of = kept[name]
    assert isinstance(of, dict)
    assert of["scale"] == VGA.name
    assert of["average_precision"]["hard"] == 0.6
    assert of["by_fraction_of_frame"]["80–100 %"]["recall"] == 0.75
    assert set(of["at"]) == ({ORIGINAL.name} if name == ONE_VIEW else set())


def test_what_the_points_cost_recognition_is_told_for_the_graph_it_was_measured_with() -> None:
    text = detection_part(drawn_results(), Aligned(THROUGH_OURS, YUNET))
    part = part_of(text, "### Good enough to align by")
    assert "| facet | 98.57% ± 0.22% | 0.587 | 3 of 7,701 |" in part
    assert "| yunet | 98.32% ± 0.20% | 0.585 | 0 of 7,701 |" in part
    assert "6,000 pairs of photographs" in part
    assert "+0.25 points, 95 % from +0.09 to +0.41" in part
    assert "whose sha256 is 0f" in part
    assert "somebody" not in text  # the path that was measured


def test_points_that_nobody_measured_through_are_said_not_to_be_assessed() -> None:
    part = part_of(detection_part(drawn_results()), "### Good enough to align by")
    assert "Not assessed: `python -m training landmarks` was not run on this graph" in part
    assert "Good enough" not in detection_part(drawn_results(), drawn=True)
