"""The loss is the weighted sum of the losses asked for, over the faces that each may look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.embedder.tiny import STILL, tiny
from training.data.augment import augment
from training.data.identities import Faces
from training.embedder.distillation import cosine_distance, relational_distance
from training.embedder.margins import ArcFace, Head
from training.embedder.metric_losses import TripletSemiHard
from training.embedder.objective import Batch, Objective, batch_of, believed
from training.embedder.student import Student, build
from training.loop.distributed import ALONE

pytestmark = pytest.mark.usefixtures("tiny_backbone")
PK_FOUR = {"name": "pk", "people": 4, "pictures": 2}
ALL: dict[str, Any] = {
    "batch": 8,
    "sampling": PK_FOUR,
    "metric": {"triplet": 0.5, "centre": 0.25},
    "distillation": {"weight": 2.0, "relational": 3.0},
    "head": {"weight": 4.0, "options": {"scale": 16.0, "margin": 0.2}},
}


def embeddings(n: int = 8) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(3), requires_grad=True)


def targets() -> np.ndarray:
    return F.normalize(torch.randn(16, 16, generator=torch.Generator().manual_seed(4))).numpy()


def batch(clean: tuple[int, ...] = tuple(range(8))) -> Batch:
    index = np.arange(8) * 2
    believed = torch.zeros(8, dtype=torch.bool)
    believed[list(clean)] = True
    return Batch(index, np.zeros((8, 112, 112, 3), np.uint8), torch.arange(8) // 2, believed)


def asked(
    drawn_faces: Faces, of: Batch, forced: bool = False, hint: Tensor | None = None, **changed: Any
) -> tuple[Tensor, dict[str, Tensor], Student]:
    config = tiny(**{**ALL, **changed})
    student = build(config, drawn_faces)
    loss, parts = Objective(config, targets())(student, embeddings(), of, hint, forced=forced)
    return loss, parts, student


def test_the_loss_is_the_weighted_sum_of_the_losses_by_themselves(drawn_faces: Faces) -> None:
    loss, parts, student = asked(drawn_faces, batch(), hint=torch.tensor(7.0))
    target, label = torch.from_numpy(targets())[::2], torch.arange(8) // 2
    expected = {
        "hints": torch.tensor(7.0),
        "distillation": cosine_distance(embeddings(), target),
        "relations": relational_distance(embeddings(), target),
        "arcface": student.head(embeddings(), label),
        "triplet": TripletSemiHard(0.2)(embeddings(), label).loss,
        "active": TripletSemiHard(0.2)(embeddings(), label).active,
        "centre": torch.tensor(0.5),  # the centres begin at nought, a unit vector's distance away
    }
    torch.testing.assert_close(parts, expected)
    weights = {"hints": 0.5, "distillation": 2, "relations": 3, "arcface": 4, "triplet": 0.5, "centre": 0.25}
    torch.testing.assert_close(loss, sum(weight * parts[name] for name, weight in weights.items()))


def test_the_head_is_the_one_asked_for(drawn_faces: Faces) -> None:
    _, parts, student = asked(drawn_faces, batch())
    head = Head(ArcFace(scale=16.0, margin=0.2), 16, 4)
    head.load_state_dict(student.head.state_dict())
    torch.testing.assert_close(parts["arcface"], head(embeddings(), torch.arange(8) // 2))


def test_while_layers_are_forced_identities_wait(drawn_faces: Faces) -> None:
    loss, parts, student = asked(drawn_faces, batch(), forced=True, hint=torch.tensor(1.0))
    assert set(parts) == {"hints", "distillation", "relations"}
    assert not student.centres.centre.any()
    loss.backward()
    assert student.head.weight.grad is None


@pytest.mark.parametrize("sampled", [1.0, 0.5])
def test_identity_losses_see_clean_faces_alone(sampled: float, drawn_faces: Faces) -> None:
    clean = (0, 3, 5)
    head = {"weight": 1.0, "sample_rate": sampled}
    _, parts, student = asked(drawn_faces, batch(clean), head=head, metric={"centre": 1.0})
    student.head.eval()  # all classes
    rows = torch.tensor(clean)
    expected = student.head(embeddings()[rows], rows // 2)
    if sampled == 1:
        torch.testing.assert_close(parts["arcface"], expected)
    else:
        assert 0 < parts["arcface"] <= expected + 1e-6  # fewer classes, none of its own missing
    assert {int(row) for row in student.centres.centre.any(1).nonzero()} == {0, 1, 2}
    _, none, _ = asked(drawn_faces, batch(()), head=head, metric={"centre": 1.0})
    assert none["arcface"] == none["centre"] == 0


@pytest.mark.parametrize("clean", [(0, 1, 2, 3, 4, 5, 6, 7), (0, 3, 4), (7,), ()])
@pytest.mark.parametrize("most", [2, 3, 5])
def test_the_densities_make_the_means_of_micro_batches_the_mean_of_all(
    most: int, clean: tuple[int, ...]
) -> None:
    whole = batch(clean)
    value = torch.arange(8.0) ** 2
    parts = whole.parts(most)
    assert np.concatenate([part.index for part in parts]).tolist() == whole.index.tolist()
    total = 0.0
    for part in parts:
        of = value[torch.from_numpy(part.index // 2)][part.clean]
        mean = of.mean().item() if len(of) else 0.0
        total += part.density * mean * len(part) / len(whole)
    assert total == pytest.approx(value[list(clean)].mean().item() if clean else 0.0)


def test_a_batch_that_is_not_cut_is_left_as_it_is() -> None:
    whole = batch((1, 2))
    assert whole.parts(8) == [whole]
    assert whole.density == 1


def test_a_batch_is_a_function_of_step_and_rank(drawn_faces: Faces) -> None:
    config, index = tiny(), np.array([3, 9, 3])
    first = batch_of(drawn_faces, index, 5, 0, config)
    np.testing.assert_array_equal(batch_of(drawn_faces, index, 5, 0, config).crops, first.crops)
    for step, rank in ((6, 0), (5, 1)):
        assert not np.array_equal(batch_of(drawn_faces, index, step, rank, config).crops, first.crops)
    assert not np.array_equal(first.crops[0], first.crops[2])  # each its own chance
    rng = np.random.default_rng((config.seed, 1, 5, 0))
    np.testing.assert_array_equal(first.crops[0], augment(drawn_faces.pictures[3], rng, config.augmentation))


def test_a_batch_knows_whose_label_is_probably_wrong(drawn_faces: Faces) -> None:
    similarity = np.full(16, 0.9, np.float32)
    similarity[[2, 5]] = 0.24, 0.25
    doubted = replace(drawn_faces, similarity=similarity)
    assert np.flatnonzero(~believed(doubted, tiny())).tolist() == [2]
    found = batch_of(doubted, np.array([5, 2, 1]), 0, 0, tiny(augmentation=STILL))
    assert found.clean.tolist() == [True, False, True]
    assert found.label.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(found.crops[1], doubted.crops()[2])
    assert len(found.parts(2, ALONE)) == 2
