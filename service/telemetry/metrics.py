"""Every metric of the service, declared once; a label takes few values, and never one that a caller chooses freely.

Each `Metrics` has its own registry, so that several services (and tests) live in one process without meeting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
_FACES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


class GalleryState(Protocol):
    """What is told of a gallery: `size` persons, `templates` vectors, as of `revision`."""

    @property
    def id(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def templates(self) -> int: ...
    @property
    def revision(self) -> int: ...


class _Galleries(Collector):
    """The galleries as they are when somebody looks: nothing to keep up to date, nothing to forget."""

    def __init__(self, galleries: Callable[[], Iterable[GalleryState]], ready: Callable[[], bool]) -> None:
        self._galleries, self._ready = galleries, ready

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families())  # or registering would collect, before there is anything to read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        persons, templates, revision, ready = self._families()
        for gallery in self._galleries():
            persons.add_metric([gallery.id], gallery.size)
            templates.add_metric([gallery.id], gallery.templates)
            revision.add_metric([gallery.id], gallery.revision)
        ready.add_metric([], self._ready())
        return iter((persons, templates, revision, ready))

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, ...]:
        by = ["gallery"]
        return (
            GaugeMetricFamily("facet_gallery_persons", "Persons in a gallery.", labels=by),
            GaugeMetricFamily("facet_gallery_templates", "Templates in a gallery.", labels=by),
            GaugeMetricFamily("facet_gallery_revision", "Revision that searches see.", labels=by),
            GaugeMetricFamily("facet_index_ready", "1 while the index equals the database.", labels=[]),
        )


class Metrics:
    """The metrics, by name. Times are seconds, sizes are counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        # The doors.
        self.requests = self._counter("requests", "Requests answered.", "door", "method", "code")
        self.request_seconds = self._histogram(
            "request_seconds", "Whole request.", _SECONDS, "door", "method"
        )
        self.in_flight = self._gauge("in_flight", "Requests between the door and their answer.")
        self.refused = self._counter("refused", "Requests refused because the service was full.", "reason")
        # The way of one picture.
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time of one picture in a stage.", _SECONDS, "stage"
        )
        self.faces = self._histogram("faces_per_picture", "Faces found in a picture.", _FACES)
        self.pixels = self._gauge("pixels_held", "Decoded pixels held by running requests.")
        # The engines.
        self.queue_depth = self._gauge("queue_depth", "Items waiting for a lane.", "engine")
        self.batch_size = self._histogram("batch_size", "Items run together.", _COUNTS, "engine")
        self.run_seconds = self._histogram("run_seconds", "One batch on a lane.", _SECONDS, "engine")
        self.dropped = self._counter("dropped", "Items dropped before they were run.", "engine", "reason")
        self.failed_batches = self._counter(
            "failed_batches", "Batches that failed and were retried.", "engine"
        )
        # The decisions.
        self.decisions = self._counter("decisions", "Decisions made.", "verb", "decision")
        self.enrolled = self._counter("enrolled_faces", "Faces accepted by enrolment.")
        self.rejected = self._counter("rejected_pictures", "Pictures rejected by enrolment.", "reason")
        # What is served.
        self.model = self._gauge("model_info", "Always 1.", "model_id", "embedding_space", "backend")

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """Count one picture's stages: name → milliseconds."""
        for stage, spent in timings_ms.items():
            self.stage_seconds.labels(stage).observe(spent / 1000)

    def watch(self, galleries: Callable[[], Iterable[GalleryState]], ready: Callable[[], bool]) -> None:
        """Tell of these galleries, and whether the index equals the database, at every exposition."""
        self.registry.register(_Galleries(galleries, ready))

    def exposition(self) -> bytes:
        """Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"facet_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"facet_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"facet_{name}", about, labels, registry=self.registry, buckets=buckets)
