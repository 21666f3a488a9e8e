"""Invariant 8: whatever is logged, no picture, vector, key or traceback stands in the line."""

from __future__ import annotations

import io
import json
import logging as standard
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from service.telemetry import logging

KEY = "facet_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = standard.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logging.configure("debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def only(lines: io.StringIO) -> dict[str, Any]:
    (line,) = lines.getvalue().splitlines()
    told: dict[str, Any] = json.loads(line)
    return told


def test_a_line_is_one_json_object_with_its_facts(lines: io.StringIO) -> None:
    logging.get("service.x").info("gallery rebuilt", gallery="default", templates=12, ready=True)
    line = only(lines)
    assert line["event"] == "gallery rebuilt"
    assert (line["gallery"], line["templates"], line["ready"], line["level"]) == ("default", 12, True, "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "abc"), ("authorization", "Bearer abc"), ("password", "abc"), ("database_url", "abc"), ("x", KEY),
        ("embedding", [0.25, 0.5]), ("x", [0.123456] * 128), ("x", np.full(128, 0.123456)), ("x", b"\xff\xd8\xff"),
        ("x", {"api_key": "abc"}), ("x", f"sent {KEY} to us"), ("x", "postgresql://facet:hunter2@db/facet"),
        ("x", "A" * 5000), ("x", [b"\xff\xd8\xff"]), ("image", "abc"), ("x", "Bearer hunter2"),
    ],
)  # fmt: skip
def test_what_must_not_leave_is_redacted(name: str, value: object, lines: io.StringIO) -> None:
    logging.get("service.x").info("said", **{name: value})
    line = lines.getvalue()
    assert logging.REDACTED in line
    for secret in ("abc", KEY, "0.123456", "0.25", "hunter2", "ffd8", "\\xff", "A" * 100):
        assert secret not in line


def test_an_exception_is_its_kind_and_place_never_its_words_or_its_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot read {KEY}")
    except ValueError:
        logging.get("service.x").exception("a batch failed", engine="detector")
    line = only(lines)
    assert (line["error"], line["engine"]) == ("ValueError", "detector")
    assert line["at"].startswith("tests.service.telemetry.test_logging:")
    assert "Traceback" not in lines.getvalue()
    assert "cannot read" not in lines.getvalue()


def test_a_library_that_logs_passes_the_scrubber_too(lines: io.StringIO) -> None:
    try:
        raise RuntimeError("secret words")
    except RuntimeError:
        standard.getLogger("uvicorn.error").exception(
            "request with x-api-key: %s failed", KEY, extra={"token": "abc"}
        )
    assert only(lines)["error"] == "RuntimeError"
    for secret in (KEY, "abc", "secret words", "Traceback"):
        assert secret not in lines.getvalue()


def test_an_object_is_told_without_what_it_holds(lines: io.StringIO) -> None:
    logging.get("service.x").info("said", error=ValueError(KEY), many=list(range(1000)))
    line = only(lines)
    assert line["error"] == "ValueError"
    assert len(line["many"]) <= 20
