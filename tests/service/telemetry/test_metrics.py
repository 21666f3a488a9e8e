"""Metrics are declared once and kept apart between services of one process."""

from __future__ import annotations

from service.gallery.index import GalleryIndex
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
    galleries = [GalleryIndex("staff", 4).publish(7, 3)]
    metrics.watch(lambda: galleries, lambda: False)
    told = metrics.exposition().decode()
    assert 'facet_gallery_persons{gallery="staff"} 3.0' in told
    assert 'facet_gallery_revision{gallery="staff"} 7.0' in told
    assert "facet_index_ready 0.0" in told
    galleries.clear()
    assert 'gallery="staff"' not in metrics.exposition().decode()
