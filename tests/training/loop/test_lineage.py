"""A run knows which runs it was begun with, oldest first, by what their files hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from training.loop import checkpoint
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.lineage import Ancestor, begun_from, in_words, lineage_of

OLDEST = Ancestor(backbone="wide", steps=4860, sha256="0" * 64)


def test_a_checkpoint_without_a_lineage_was_begun_from_nothing_known(tmp_path: Path) -> None:
    assert lineage_of({}, tmp_path) == lineage_of({"lineage": []}, tmp_path) == ()


def test_a_run_follows_those_that_it_was_begun_with(tmp_path: Path) -> None:
    state: dict[str, Any] = {"config": {"backbone": "narrow"}, "step": 1215, "lineage": [OLDEST.model_dump()]}
    file = tmp_path / "last.pt"
    checkpoint.save(file, state)
    state = checkpoint.load(file)
    assert lineage_of(state, file) == (OLDEST,)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert begun_from(state, file) == (OLDEST, Ancestor(backbone="narrow", steps=1215, sha256=digest))


@pytest.mark.parametrize(
    ("lineage", "named"),
    [
        ([{"backbone": "a", "steps": -1, "sha256": "0" * 64}], "0.steps: "),
        ([{"backbone": "a", "steps": 1, "sha256": "short"}], "0.sha256: "),
        ([{"backbone": "a", "steps": 1}], "0.sha256: Field required"),
        ("a run", "tuple"),
    ],
)
def test_an_impossible_lineage_is_named(lineage: Any, named: str) -> None:
    with pytest.raises(UnreadableCheckpoint, match=rf"last\.pt has an impossible lineage: .*{named}"):
        lineage_of({"lineage": lineage}, Path("last.pt"))


def test_in_words_it_goes_back_in_time() -> None:
    younger = Ancestor(backbone="narrow", steps=1215, sha256="1" * 64)
    assert in_words((OLDEST, younger)) == (
        "begun with the weights of 1,215 steps of narrow, those begun with 4,860 steps of wide"
    )
    assert in_words((younger,)) == "begun with the weights of 1,215 steps of narrow"
    assert in_words(()) == ""
