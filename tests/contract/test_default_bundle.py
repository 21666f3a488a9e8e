"""What a clone serves: whole, small, research-only, above its floors, and with a report that shows no one."""

from __future__ import annotations

import pytest

from bundle.folder import Bundle, open_bundle
from training.config import REPOSITORY, read_config
from training.evaluation.floors import Floors, judged

MEGABYTES = 20


@pytest.fixture(scope="module")
def default() -> Bundle:
    return open_bundle(REPOSITORY / "models" / "default")


def test_it_is_under_twenty_megabytes(default: Bundle) -> None:
    assert sum(entry.size for entry in default.manifest.files.values()) < MEGABYTES * 1_000_000


def test_its_licence_is_that_of_its_data(default: Bundle) -> None:
    assert default.manifest.licence.id == "research-only"
    assert {line.split()[0] for line in default.manifest.provenance.datasets} >= {
        "faces",
        "lfw",
        "wider",
        "reference",
    }


def test_it_reached_every_floor_of_today(default: Bundle) -> None:
    metrics = default.manifest.metrics
    verdicts = judged(
        read_config(Floors, REPOSITORY / "training" / "configs" / "floors.toml"),
        metrics["recognition"]["facet"]["lfw"]["accuracy"],
        metrics["recognition"]["fnmr_ratio@fmr=0.001"]["value"],
        metrics["detection"]["facet"]["recall@1fp"],
        min(of["value"] for of in metrics["detection"]["average_precision_less_reference"]["VGA"].values()),
    )
    assert not [str(verdict) for verdict in verdicts if not verdict.holds]


def test_its_detector_has_the_reference_s_average_precision_at_both_sizes(default: Bundle) -> None:
    sizes = default.manifest.metrics["detection"]["average_precision_less_reference"]
    assert set(sizes) == {"VGA", "original size"}
    assert all(set(rows) == {"easy", "medium", "hard"} for rows in sizes.values())
    assert min(of["value"] for rows in sizes.values() for of in rows.values()) >= 0


def test_its_report_states_terms_leakage_and_limits(default: Bundle) -> None:
    text = default.file("REPORT.md").read_text()
    for said in ("Research only", "MS1M", "not assessed", "Presentation attacks are not detected"):
        assert said in text
    assert [name for name in default.manifest.files if name.endswith((".jpg", ".jpeg", ".webp"))] == []


def test_its_calibration_carries_the_service_s_defaults(default: Bundle) -> None:
    calibration = default.manifest.calibration
    assert 0 < calibration.threshold_for_fmr(1e-4).value < 1
    assert 0 < calibration.threshold_for_fpir(0.01, {1: 1000}).value < 1
