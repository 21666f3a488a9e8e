"""Weights go over from run to run where they fit, and a checkpoint of something else is refused by what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.decode import AnchorLayout
from tests.training.detector.oblongs import SMALL
from training.detector.config import Backbone, DetectorConfig
from training.detector.student import Student, build
from training.loop import checkpoint
from training.loop.lineage import LINEAGE
from training.loop.optimiser import Optimiser
from training.loop.records import PHOTOGRAPHS, Record

OTHER = SMALL.model_copy(update={"seed": 8})
MOBILE = SMALL.model_copy(update={"backbone": Backbone(name="mobilenet", width=0.25)})
SEEN = Record(name="a", pictures=3, faces=2, names="0f", labels="official")


def kept(folder: Path, of: DetectorConfig = OTHER, name: str = "other.pt", **changed: Any) -> Path:
    """The checkpoint of another run after seven steps."""
    student = build(of)
    student.step, student.records = 7, (SEEN,)
    for parameter in student.average.parameters():
        parameter.data += 0.25
    checkpoint.save(folder / name, {**student.state(of), **changed})
    return folder / name


def same(student: Student, state: dict[str, Any], part: str = "average") -> bool:
    models = student.model.state_dict(), student.average.state_dict()
    return all(
        torch.equal(of[name], state[part][name].float()) for of in models for name in of if of[name].ndim
    )


def test_a_run_begins_with_the_average_and_tells_where_it_is_from(tmp_path: Path) -> None:
    source, student = kept(tmp_path), build(SMALL)
    told = student.begin_from(source, SMALL)
    count = len(student.model.state_dict())
    assert told == (
        f"begins with {count} of {count} tensors of {source}: begun with the weights of 7 steps of resnet 8-8-8-8"
    )
    assert same(student, checkpoint.load(source))
    assert (student.step, student.records) == (0, (SEEN,))
    state = student.state(SMALL)
    assert [(of["backbone"], of["steps"]) for of in state[LINEAGE]] == [("resnet 8-8-8-8", 7)]
    assert state[PHOTOGRAPHS] == [SEEN.model_dump()]


def test_lineage_grows_from_run_to_run_and_survives_a_resume(tmp_path: Path) -> None:
    first, second = build(SMALL), build(SMALL)
    first.begin_from(kept(tmp_path), SMALL)
    checkpoint.save(tmp_path / "first.pt", first.state(SMALL))
    second.begin_from(tmp_path / "first.pt", SMALL)
    checkpoint.save(tmp_path / "second.pt", second.state(SMALL))
    resumed = build(SMALL)
    resumed.restore(tmp_path / "second.pt", SMALL)
    assert [of.steps for of in resumed.lineage] == [7, 0]
    assert resumed.lineage == second.lineage
    assert resumed.records == (SEEN,)


def test_a_run_may_begin_with_a_shortened_checkpoint_but_not_go_on(tmp_path: Path) -> None:
    state = checkpoint.load(kept(tmp_path))
    checkpoint.save(
        tmp_path / "short.pt", checkpoint.compact({k: v for k, v in state.items() if k != "model"})
    )
    short = checkpoint.load(tmp_path / "short.pt")
    assert short["average"]["backbone.stem.0.0.weight"].dtype == torch.float16
    student = build(SMALL)
    student.begin_from(tmp_path / "short.pt", SMALL)
    assert same(student, short)
    assert all(of.dtype == torch.float32 for of in student.model.parameters())
    with pytest.raises(
        checkpoint.UnreadableCheckpoint, match="holds no optimiser, rng: a new --run can --begin-from it"
    ):
        student.restore(tmp_path / "short.pt", SMALL)


def test_what_fits_is_taken_of_a_wider_head(tmp_path: Path) -> None:
    student, config = build(SMALL), SMALL.model_copy(update={"head": (16,)})
    wide = build(config)
    told = wide.begin_from(kept(tmp_path), config)
    state = checkpoint.load(tmp_path / "other.pt")["average"]
    assert torch.equal(wide.model.state_dict()["backbone.stem.0.0.weight"], state["backbone.stem.0.0.weight"])
    assert wide.model.state_dict()["outputs.0.weight"].shape != state["outputs.0.weight"].shape
    assert int(told.split()[2]) < len(wide.model.state_dict())
    assert student.lineage == ()


def test_other_anchors_are_said(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"anchors": AnchorLayout(sizes=((16, 32), (64, 128), (256, 512)))})
    assert (
        build(config)
        .begin_from(kept(tmp_path), config)
        .endswith("its anchors were others, the heads learn ours anew")
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "embedder"}, "is not a detector's checkpoint of this version: begin from another run"),
        ({"config": {"size": 3}}, "was made by another version: size: there is no such key"),
        ({PHOTOGRAPHS: "none"}, "impossible records"),
        ({LINEAGE: [{"steps": 3}]}, "impossible lineage"),
    ],
)
def test_another_checkpoint_is_refused_and_nothing_taken(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    student = build(SMALL)
    before = {name: of.clone() for name, of in student.model.state_dict().items()}
    with pytest.raises(checkpoint.UnreadableCheckpoint, match=message):
        student.begin_from(kept(tmp_path, **changed), SMALL)
    assert all(torch.equal(of, before[name]) for name, of in student.model.state_dict().items())
    assert (student.lineage, student.records) == ((), ())


def test_the_checkpoint_of_another_backbone_is_refused_with_both_names(tmp_path: Path) -> None:
    expected = (
        r"shares \d+ of \d+ tensors with this backbone: that is mobilenet × 0\.25, this resnet 8-8-8-8;"
    )
    with pytest.raises(checkpoint.UnreadableCheckpoint, match=expected):
        build(SMALL).begin_from(kept(tmp_path, MOBILE), SMALL)


def test_a_damaged_file_to_begin_from_is_not_advised_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "half.pt").write_bytes(kept(tmp_path).read_bytes()[:1000])
    with pytest.raises(
        checkpoint.UnreadableCheckpoint, match=r"half\.pt cannot be read .*begin from another run"
    ):
        build(SMALL).begin_from(tmp_path / "half.pt", SMALL)


def test_a_checkpoint_from_before_records_and_lineage_goes_on(tmp_path: Path) -> None:
    student = build(SMALL)
    student.step = 4
    state = student.state(SMALL)
    checkpoint.save(
        tmp_path / "old.pt", {key: of for key, of in state.items() if key not in (LINEAGE, PHOTOGRAPHS)}
    )
    resumed = build(OTHER)
    resumed.restore(tmp_path / "old.pt", SMALL)
    assert (resumed.step, resumed.lineage) == (4, ())
    assert [of.name for of in resumed.records] == ["not recorded"]


def test_another_optimiser_s_memory_is_refused(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"optimiser": Optimiser(name="sgd")})
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="was made with sgd, this run has adamw"):
        build(SMALL).restore(kept(tmp_path, config), SMALL)
