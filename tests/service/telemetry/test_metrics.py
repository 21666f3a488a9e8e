"""Metrics are declared once and kept apart between services of one process."""

from __future__ import annotations

from service.telemetry.metrics import Metrics


def test_the_exposition_names_every_metric_with_its_help() -> None:
    metrics = Metrics()
    metrics.requests.labels("rest", "identify", "ok").inc()
    metrics.stages({"decode": 3.0, "total": 40.0})
    text = metrics.exposition().decode()
    assert 'facet_requests_total{code="ok",door="rest",method="identify"} 1.0' in text
    assert 'facet_stage_seconds_sum{stage="decode"} 0.003' in text
    assert "# HELP facet_queue_depth " in text
    assert "process_resident_memory_bytes" in text


def test_two_services_in_one_process_do_not_share_numbers() -> None:
    first, second = Metrics(), Metrics()
    first.enrolled.inc()
    assert "facet_enrolled_faces_total 1.0" in first.exposition().decode()
    assert "facet_enrolled_faces_total 0.0" in second.exposition().decode()


def test_a_deleted_gallery_is_reported_no_more() -> None:
    metrics = Metrics()
    metrics.gallery("staff", persons=3, templates=5, revision=7)
    assert 'facet_gallery_templates{gallery="staff"} 5.0' in metrics.exposition().decode()
    metrics.forget_gallery("staff")
    assert 'gallery="staff"' not in metrics.exposition().decode()
