"""A benchmark that cannot be run says so in a line; what somebody named and is not there is a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import detector, near_faces
from benchmarks.datasets import WIDER, YUNET_GRAPH, datasets
from training import config

NEEDED = (WIDER, YUNET_GRAPH)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    for of in NEEDED:
        (tmp_path / of).mkdir(parents=True)
    return tmp_path


def test_a_folder_that_is_found_or_given_and_holds_all_is_taken_without_a_word(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert datasets("a", whole, NEEDED) == whole
    monkeypatch.setenv("FACET_DATASETS", str(whole))
    assert datasets("a", None, NEEDED) == whole
    assert capsys.readouterr().out == ""


def test_a_folder_that_is_found_and_lacks_something_leaves_the_benchmark_out(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole / WIDER).rmdir()
    monkeypatch.setenv("FACET_DATASETS", str(whole))
    assert datasets("a", None, NEEDED) is None
    assert capsys.readouterr().out == f"a: left out, the data sets in {whole} hold no wider\n"


def test_what_was_named_and_is_not_there_is_an_error(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole / WIDER).rmdir()
    with pytest.raises(SystemExit, match=f"--data {whole}: no wider"):
        datasets("a", whole, NEEDED)
    monkeypatch.setenv("FACET_DATASETS", str(whole / "nowhere"))
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        datasets("a", None, NEEDED)


@pytest.mark.parametrize("main", [detector.main, near_faces.main], ids=["detector", "near_faces"])
def test_without_data_sets_a_benchmark_of_the_detector_is_left_out_in_one_line(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config, "datasets", lambda: None)
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    main()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.endswith(": left out, there are no data sets: set FACET_DATASETS, or give --data")
