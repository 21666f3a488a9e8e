"""Photographs of people stay where they are asked for: in a run's folder, never in what is published."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundle.decode import Detections
from bundle.folder import Bundle
from tests.training.evaluation.drawn_detection import drawn_finding
from training.data.photographs import Photograph
from training.export.detection import overlay

THRESHOLD = 0.4
GREEN = (0, 255, 0)


def grey(name: str) -> Photograph:
    pixels = np.full((60, 80, 3), 120, np.uint8)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, bool), np.zeros((0, 5, 2), np.float32)
    return Photograph(name, pixels, 1.0, *nothing)


def found(*scores: float) -> Detections:
    """A box for each, 20 pixels further to the right than the one before."""
    left = 5.0 + 20 * np.arange(len(scores))
    boxes = np.stack([left, left * 0 + 10, left + 14, left * 0 + 40], 1).astype(np.float32)
    points = np.repeat(boxes[:, None, :2] + np.float32(7), 5, 1)
    return Detections(boxes, points, np.array(scores, np.float32))


def green(file: Path) -> np.ndarray:
    """Columns with a vertical edge of a drawn box, for which JPEG leaves its green at least greener than grey."""
    picture = cv2.imread(str(file)).astype(int)
    return np.flatnonzero((picture[14:36, :, 1] - picture[14:36, :, ::2].max(2) > 60).all(0))


def test_boxes_from_the_threshold_on_are_drawn_into_the_folder_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = drawn_finding("ours")
    result = replace(drawn, at_one=replace(drawn.at_one, threshold=THRESHOLD))
    pictures = [grey("../../away/one"), grey("/two"), grey("three")]
    everything = [found(0.9, THRESHOLD, 0.39), found(0.1), found()]
    overlay(pictures, everything, result, tmp_path / "work" / "overlays")
    files = sorted(of.relative_to(tmp_path) for of in tmp_path.rglob("*") if of.is_file())
    assert files == [Path("work/overlays") / f"{number:02d}.jpg" for number in range(3)]
    columns = green(files[0])
    for edge in (5, 19, 25, 39):  # of the first and of the second
        assert np.abs(columns - edge).min() <= 1
    assert columns.max() < 43  # nothing of the third, which begins at 45
    for file in files[1:]:
        assert np.abs(cv2.imread(str(file)).astype(int) - 120).max() <= 2
    assert all((one.pixels == 120).all() for one in pictures)


def test_a_published_bundle_holds_no_picture_but_the_figures_of_its_report(published: Bundle) -> None:
    files = [of for of in published.path.rglob("*") if of.is_file()]
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", (published.path / "REPORT.md").read_text()))
    pictures = {of.name for of in files if cv2.imdecode(np.fromfile(of, np.uint8), -1) is not None}
    assert pictures == shown
    assert shown
    assert all(re.fullmatch(r"report-\w+\.png", name) for name in shown)
    within = re.compile(rb"\xff\xd8\xff.{3}(JFIF|Exif)|\x89PNG\r\n\x1a\n|RIFF....WEBP|data:image", re.DOTALL)
    for of in files:
        assert len(within.findall(of.read_bytes())) == (of.name in shown), of.name
