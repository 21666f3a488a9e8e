"""The smallest fields and files that make a bundle; its models are not models."""

from __future__ import annotations

import hashlib
from typing import Any

FILES = {"detector.onnx": b"detector" * 40, "embedder.onnx": b"embedder" * 50, "REPORT.md": b"# Report\n"}


def digest(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


def curve(templates: int = 1, lift: float = 0.0) -> dict[str, Any]:
    """A curve whose rates are e^(−20 (t + 0.2 − lift)) from −0.2 + lift on, to a floor of about 1e-4."""
    thresholds = [-1.0, *(round(-0.2 + lift + 0.02 * step, 6) for step in range(1, 24))]
    rates = [1.0, *(2.718281828 ** (-0.4 * step) for step in range(1, 24))]
    return {
        "templates": templates,
        "comparisons": 100_000,
        "people": 450,
        "thresholds": thresholds,
        "rates": rates,
        "low": [rate * 0.9 for rate in rates],
        "high": [min(1.0, rate * 1.1) for rate in rates],
        "tail": {
            "start": thresholds[-1],
            "rate": rates[-1],
            "shape": 0.0,
            "scale": 0.05,
            "excesses": 200,
            "fitted_above": 0.1,
        },
    }


def calibration(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "dataset": "drawn",
        "detector": digest("detector.onnx"),
        "embedder": digest("embedder.onnx"),
        "people": 450,
        "pictures": 900,
        "seed": 0,
        "curves": [curve(), curve(2, 0.03), curve(5, 0.07)],
        "bootstraps": 0,
    }
    return {**plain, **changes}


def fields() -> dict[str, Any]:
    """Manifest's fields without `files` and `seal`, as plain values."""
    return {
        "name": "small",
        "version": "1.0",
        "created": "2026-01-01T00:00:00Z",
        "licence": {"id": "research-only", "text": "Because of the data."},
        "detector": {},
        "embedder": {"dimension": 128},
        "calibration": calibration(),
        "metrics": {"lfw": 0.95, "note": "small", "detail": {"ap": [0.1, 0.2]}},
        "provenance": {"datasets": ["drawn"], "commit": "0", "configs": {"a": {"b": 1}}, "command": "none"},
    }
