"""A student begins where it is told to, and goes on from a checkpoint of its own kind alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.embedder.tiny import Colours, tiny
from training.data.identities import Faces
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.config import EmbedderConfig
from training.embedder.margins import Head
from training.embedder.objective import batch_of
from training.embedder.partial_fc import PartialFC, RowAdamW, RowSGD
from training.embedder.records import face_record
from training.embedder.student import Student, build, gather_up, spread_out
from training.embedder.train import prepare, train_step
from training.loop import checkpoint
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.distributed import ALONE, World
from training.loop.optimiser import parameter_groups
from training.loop.records import LEARNT_FROM, NOT_RECORDED

pytestmark = pytest.mark.usefixtures("tiny_backbone")
SAMPLED = {"weight": 1.0, "sample_rate": 0.5}


def trained(config: EmbedderConfig, faces: Faces, steps: int = 3, apart: int = 4) -> Student:
    """After some steps of four faces each: of one person (apart 1), of all four (4)."""
    training = prepare(config, Path("unused"), faces, None, ALONE)
    training.student.records = (face_record(faces),)
    for step in range(steps):
        index = (np.arange(0, 4 * apart, apart) + step * apart) % 16
        train_step(training, batch_of(faces, index, step, 0, config), 0.01)
    return training.student


def written(folder: Path, config: EmbedderConfig, faces: Faces, **changed: Any) -> Path:
    state = {**trained(config, faces, 1).state(config), **changed}
    checkpoint.save(folder / "last.pt", {name: value for name, value in state.items() if value is not None})
    return folder / "last.pt"


def test_the_average_begins_as_the_model_and_is_not_in_training(drawn_faces: Faces) -> None:
    student = build(tiny(backbone="tiny-normalised"), drawn_faces)
    assert not student.average.training
    assert student.step == 0
    for name, value in student.model.state_dict().items():
        assert torch.equal(student.average.state_dict()[name], value)
    again = build(tiny(backbone="tiny-normalised"), drawn_faces).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in student.model.state_dict().items())
    other = build(tiny(backbone="tiny-normalised", seed=8), drawn_faces).model.state_dict()
    assert not torch.equal(other["hidden.weight"], student.model.state_dict()["hidden.weight"])


@pytest.mark.parametrize("head", [{"weight": 1.0}, SAMPLED])
def test_with_a_teacher_the_class_centres_begin_where_it_sees_the_people(
    head: dict[str, Any], drawn_faces: Faces
) -> None:
    targets = Colours().embed(drawn_faces.crops())
    student = build(tiny(head=head), drawn_faces, targets)
    means = torch.from_numpy(np.stack([targets[drawn_faces.label == who].mean(0) for who in range(4)]))
    torch.testing.assert_close(student.head.weight.data, F.normalize(means))
    of_another_space = build(tiny(head=head, dimension=32), drawn_faces, targets)
    assert of_another_space.head.weight.norm(dim=1).max() < 0.2  # random: N(0, 0.01)


def test_the_optimiser_s_parts_are_those_asked_for(drawn_faces: Faces) -> None:
    whole = build(tiny(optimiser={"weight_decay": 0.3}), drawn_faces)
    assert isinstance(whole.head, Head)
    assert isinstance(whole.optimiser, torch.optim.AdamW)
    assert whole.rows is None
    assert whole.optimisers == (whole.optimiser,)
    decaying, others = whole.optimiser.param_groups
    assert decaying["params"][-1] is whole.head.weight
    assert [decaying["weight_decay"], others["weight_decay"]] == [0.3, 0]
    assert all(of.ndim < 2 for of in others["params"])
    for name, rows in (("adamw", RowAdamW), ("sgd", RowSGD)):
        sampled = build(tiny(head=SAMPLED, optimiser={"name": name}), drawn_faces)
        assert isinstance(sampled.head, PartialFC)
        assert isinstance(sampled.rows, rows)
        held = [of for group in sampled.optimiser.param_groups for of in group["params"]]
        assert not any(of is sampled.head.weight for of in held)
        assert len(held) == len(list(sampled.model.parameters()))


def test_slopes_and_scales_are_not_decayed() -> None:
    groups = parameter_groups(0.02, MobileFaceNet(16), nn.Linear(2, 2))
    assert [group["weight_decay"] for group in groups] == [0.02, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])


def test_only_what_has_a_gradient_is_moving(drawn_faces: Faces) -> None:
    student = build(tiny(head=SAMPLED), drawn_faces)
    assert student.moving == ()
    student.model(torch.randn(2, 3, 112, 112)).sum().backward()
    assert student.moving == (student.optimiser,)
    student.head(torch.randn(2, 16), torch.tensor([0, 1])).backward()
    assert student.moving == (student.optimiser, student.rows)


def test_a_checkpoint_holds_plain_values_under_fixed_names(drawn_faces: Faces) -> None:
    state = build(tiny(), drawn_faces).state(tiny())
    assert list(state) == [
        "kind",
        "config",
        "step",
        "processes",
        "lineage",
        "learnt_from",
        "model",
        "average",
        "head",
        "centres",
        "optimiser",
        "precision",
        "rng",
    ]
    assert state["kind"] == "embedder"
    assert EmbedderConfig.model_validate(state["config"]) == tiny()
    assert list(state["head"]) == ["weight"]


def test_the_generators_go_on_where_they_were(tmp_path: Path, drawn_faces: Faces) -> None:
    file = written(tmp_path, tiny(), drawn_faces)
    drawn = []
    for _ in range(2):
        build(tiny(), drawn_faces).restore(file)
        drawn.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))
    assert drawn[0] == drawn[1]


# what is not its own


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dimension": 32}, "is of another model: model: .*size mismatch for embedding"),
        ({"backbone": "tiny-normalised"}, "is of another model: model: .*Missing key"),
        ({"optimiser": {"name": "sgd"}}, r"was made with adamw, this run has sgd: set optimiser\.name"),
        ({"head": {"name": "adaface", "weight": 1.0}}, "is of another model: head: .*margin.batches"),
        ({"metric": {"centre": 1.0}}, "is of another model: centres: .*size mismatch"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path, drawn_faces: Faces
) -> None:
    file = written(tmp_path, tiny(), drawn_faces)
    with pytest.raises(UnreadableCheckpoint, match=message):
        build(tiny(**changed), drawn_faces).restore(file)


def test_a_checkpoint_for_other_people_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    fewer = replace(drawn_faces, label=drawn_faces.label % 3)
    for head in ({"weight": 1.0}, SAMPLED):
        file = written(tmp_path, tiny(head=head), drawn_faces)
        with pytest.raises(
            UnreadableCheckpoint, match=r"head: .*size mismatch|4 identities × 16, this run has 3"
        ):
            build(tiny(head=head), fewer).restore(file)


@pytest.mark.parametrize("missing", ["step", "rng", "centres", "optimiser", "head", "average"])
def test_a_checkpoint_of_another_version_is_refused(missing: str, tmp_path: Path, drawn_faces: Faces) -> None:
    file = written(tmp_path, tiny(), drawn_faces, **{missing: None})
    with pytest.raises(UnreadableCheckpoint, match=f"holds no '?{missing}'?: it was made by another version"):
        build(tiny(), drawn_faces).restore(file)


# one process, and many


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_one_process_s_state_takes_the_form_of_many_and_comes_back(
    optimiser: str, drawn_faces: Faces, tmp_path: Path
) -> None:
    config = tiny(optimiser={"name": optimiser}, head={"name": "adaface", "weight": 1.0})
    student = trained(config, drawn_faces)
    checkpoint.save(tmp_path / "one.pt", student.state(config))
    state = checkpoint.load(tmp_path / "one.pt")
    spread_out(state)
    assert sorted(state["head"]) == ["draws", "margin", "moments", "weight"]
    assert set(state["head"]["margin"]) == {"batches", "mean", "deviation"}
    moments = {"adamw": {"mean", "square", "steps"}, "sgd": {"momentum"}}[optimiser]
    assert {name: len(of) for name, of in state["head"]["moments"].items()} == dict.fromkeys(moments, 4)
    checkpoint.save(tmp_path / "many.pt", state)

    # a world of three, none of whom is asked anything: each takes its rows
    seen = []
    for rank in range(3):
        other = build_alone(config, drawn_faces, World(rank, 3))
        other.restore(tmp_path / "many.pt")
        assert other.step == 3
        seen.append(other.head.weight.data)
    torch.testing.assert_close(torch.cat(seen), student.head.weight.data, rtol=0, atol=0)

    again = build(config, drawn_faces)
    again.restore(tmp_path / "many.pt")
    whole, back = student.state(config), again.state(config)
    for part in ("model", "average", "head", "centres"):
        torch.testing.assert_close(back[part], whole[part], rtol=0, atol=0)
    ours, theirs = (of.optimiser.state[of.head.weight] for of in (again, student))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


def build_alone(config: EmbedderConfig, faces: Faces, world: World) -> Student:
    """A rank's student without the exchange that makes first weights alike: the checkpoint does."""
    with patch("training.embedder.student.broadcast"):
        return build(config, faces, world=world)


def test_sampled_classes_have_steps_of_their_own_and_do_not_come_back(
    drawn_faces: Faces, tmp_path: Path
) -> None:
    student = trained(tiny(head={**SAMPLED, "sample_rate": 0.3}), drawn_faces, apart=1)
    steps = student.rows.state[student.head.weight]["steps"]
    assert len(set(steps.tolist())) > 1
    checkpoint.save(tmp_path / "last.pt", student.state(tiny()))
    with pytest.raises(
        UnreadableCheckpoint, match=r"made with sampled classes: set a head\.sample_rate below 1"
    ):
        build(tiny(), drawn_faces).restore(tmp_path / "last.pt")


def test_a_state_of_the_right_form_is_left_alone(drawn_faces: Faces) -> None:
    whole, sampled = (trained(tiny(head=head), drawn_faces) for head in ({"weight": 1.0}, SAMPLED))
    state = whole.state(tiny())
    gather_up(state, Path("unused"))
    assert state["head"].keys() == {"weight"}
    state = sampled.state(tiny())
    before = dict(state["head"])
    spread_out(state)
    assert state["head"] == before


def test_a_new_run_may_begin_with_another_s_average_and_centres(tmp_path: Path, drawn_faces: Faces) -> None:
    source = written(tmp_path, tiny(), drawn_faces)
    kept = checkpoint.load(source)
    student = build(tiny(backbone="tiny-normalised", seed=9), drawn_faces)
    said = student.begin_from(source, face_record(drawn_faces))
    assert student.step == 0
    for model in (student.model, student.average):
        for name, value in kept["average"].items():
            assert torch.equal(model.state_dict()[name], value)
    assert torch.equal(student.head.weight, kept["head"]["weight"])
    ours = len(student.model.state_dict())
    assert f"{len(kept['average'])} of {ours} tensors of {source}, and with its class centres" in said
    assert said.endswith(": begun with the weights of 1 steps of tiny")


@pytest.mark.parametrize("head", [{"weight": 1.0}, SAMPLED])
@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"digest": "ab"}, "of made in memory as it was then"),
        ({"identities": 3}, "of made in memory as it was then"),
        ({"name": NOT_RECORDED}, "does not say whose they are"),
    ],
)
def test_the_class_centres_of_other_people_are_left(
    head: dict[str, Any],
    teacher: bool,
    changed: dict[str, Any],
    why: str,
    tmp_path: Path,
    drawn_faces: Faces,
) -> None:
    source = written(tmp_path, tiny(), drawn_faces)
    state = checkpoint.load(source)
    checkpoint.save(source, {**state, LEARNT_FROM: [{**state[LEARNT_FROM][0], **changed}]})
    student = build(tiny(head=head), drawn_faces, Colours().embed(drawn_faces.crops()) if teacher else None)
    before = student.head.weight.clone()
    assert why in student.begin_from(source, face_record(drawn_faces))
    assert torch.equal(student.head.weight, before)
    assert torch.equal(student.model.hidden.weight, state["average"]["hidden.weight"])


def test_centres_of_another_dimension_are_left(tmp_path: Path, drawn_faces: Faces) -> None:
    source = written(tmp_path, tiny(), drawn_faces)
    student = build(tiny(dimension=32), drawn_faces)
    assert "which have another dimension" in student.begin_from(source, face_record(drawn_faces))


def test_what_a_run_was_begun_with_stays_known(tmp_path: Path, drawn_faces: Faces) -> None:
    first = written(tmp_path / "first", tiny(), drawn_faces)
    second = build(tiny(backbone="tiny-normalised"), drawn_faces)
    second.begin_from(first, face_record(drawn_faces))
    second.step = 5
    checkpoint.save(tmp_path / "second.pt", second.state(tiny(backbone="tiny-normalised")))
    third = build(tiny(), drawn_faces)
    third.begin_from(tmp_path / "second.pt", face_record(drawn_faces))
    assert [(of.backbone, of.steps) for of in third.lineage] == [("tiny", 1), ("tiny-normalised", 5)]
    assert third.lineage[0].sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    checkpoint.save(tmp_path / "third.pt", third.state(tiny()))
    again = build(tiny(), drawn_faces)
    again.restore(tmp_path / "third.pt")
    assert again.lineage == third.lineage


def test_a_checkpoint_from_before_lineages_and_records_goes_on(tmp_path: Path, drawn_faces: Faces) -> None:
    student = build(tiny(), drawn_faces)
    student.restore(written(tmp_path, tiny(), drawn_faces, lineage=None, learnt_from=None))
    assert (student.step, student.lineage) == (1, ())
    assert [of.name for of in student.records] == ["not recorded"]


def test_a_run_does_not_begin_with_what_it_hardly_shares(tmp_path: Path, drawn_faces: Faces) -> None:
    source = written(tmp_path, tiny(), drawn_faces, average={"hidden.bias": torch.zeros(24)})
    with pytest.raises(UnreadableCheckpoint, match="shares 1 of"):
        build(tiny(), drawn_faces).begin_from(source, face_record(drawn_faces))
    for other in ({"kind": "detector"}, {"kind": "embedder", "step": 3}):
        checkpoint.save(source, other)
        with pytest.raises(
            UnreadableCheckpoint, match="not an embedder's checkpoint of this version: begin from"
        ):
            build(tiny(), drawn_faces).begin_from(source, face_record(drawn_faces))
