"""What `landmarks` measured belongs to the graph that it was measured with, and to no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.data.identities import BadData
from training.evaluation.aligned import Through, read_aligned, write_aligned

YUNET = Through(
    name="yunet",
    photographs=7701,
    missed=0,
    accuracy=0.9832,
    error=0.00199,
    mated=0.585,
    less=None,
    sha256="1e",
    embedder="2d",
    pairs="6,000 pairs of photographs",
)
OURS = YUNET.model_copy(
    update={
        "name": "/home/somebody/models/default",
        "missed": 3,
        "accuracy": 0.9857,
        "error": 0.00217,
        "mated": 0.587,
        "less": (0.0025, 0.00071),
        "sha256": "0f",
    }
)


def test_what_was_measured_is_read_back_for_its_graph_alone(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "landmarks.json"
    assert read_aligned(file, "0f") is None
    write_aligned(file, [YUNET, OURS])
    found = read_aligned(file, "0f")
    assert found is not None
    assert (found.ours, found.reference) == (OURS, YUNET)
    assert read_aligned(file, "3c") is None
    assert read_aligned(file, "1e") is None  # the reference itself is compared with nothing
    write_aligned(file, [])
    assert read_aligned(file, "0f") is None


def test_the_interval_is_that_of_ten_folds(tmp_path: Path) -> None:
    """Student's t has 2.262 standard errors on either side for nine degrees of freedom."""
    less = OURS.less_interval
    assert less is not None
    assert less.value == 0.0025
    assert less.high - less.value == pytest.approx(2.262157 * 0.00071, rel=1e-5)
    assert less.value - less.low == pytest.approx(less.high - less.value)
    assert YUNET.less_interval is None
    assert "+0.25 points (+0.09 to +0.41) against the first" in str(OURS)


def test_the_manifest_keeps_figures_and_no_path(tmp_path: Path) -> None:
    write_aligned(tmp_path / "a.json", [YUNET, OURS])
    found = read_aligned(tmp_path / "a.json", "0f")
    assert found is not None
    kept = json.loads(json.dumps(found.metrics(), allow_nan=False))
    assert "somebody" not in json.dumps(kept)
    assert kept["facet"]["accuracy"] == 0.9857
    assert kept["facet"]["sha256"] == "0f"
    assert kept["reference"]["name"] == "yunet"
    assert set(kept["accuracy_less_reference"]) == {"value", "low", "high"}


def test_a_file_from_before_digests_belongs_to_no_graph(tmp_path: Path) -> None:
    old = [of.model_dump(exclude={"sha256", "embedder", "pairs", "folds"}) for of in (YUNET, OURS)]
    (tmp_path / "a.json").write_text(json.dumps(old))
    assert read_aligned(tmp_path / "a.json", "0f") is None


@pytest.mark.parametrize("text", ["{", "{}", '[{"name": "yunet"}]'])
def test_a_file_of_something_else_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadData, match=r"a\.json: not what .*landmarks` writes .*; run that anew, or remove"):
        read_aligned(tmp_path / "a.json", "0f")
