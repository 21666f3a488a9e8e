"""The sums of a step are divided once, by the faces of the whole step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.decode import anchors
from training.data.detection_augment import Crop
from training.detector.config import DetectorConfig
from training.detector.dataset import Batch, gathered, targets
from training.detector.objective import Objective, Outputs, counts_of
from training.detector.teacher import Answers
from training.loop.accumulation import micro_batches
from training.loop.distributed import ALONE

CONFIG = DetectorConfig(sides=(64,), losses={"score": "focal"})
ANCHORS = len(anchors(64, 64, CONFIG.anchors))


def crop(*boxes: tuple[float, float, float, float], known: bool = True) -> Crop:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.full((len(rows), 5, 2), 20.0 if known else np.nan, np.float32)
    return Crop(np.zeros((64, 64, 3), np.uint8), rows, np.zeros(len(rows), bool), points)


def batch(*crops: Crop) -> Batch:
    return gathered([targets(one, CONFIG) for one in crops])


@pytest.fixture
def mixed() -> Batch:
    """Two faces, none, one of unknown points, one."""
    return batch(
        crop((2, 2, 20, 24), (30, 30, 60, 62)),
        crop(),
        crop((10, 8, 30, 34), known=False),
        crop((4, 4, 44, 60)),
    )


def outputs(crops: int, seed: int = 0) -> Outputs:
    torch.manual_seed(seed)
    return torch.randn(crops, ANCHORS), torch.randn(crops, ANCHORS, 4), torch.randn(crops, ANCHORS, 10)


def answers(crops: int) -> Answers:
    torch.manual_seed(1)
    corner = torch.rand(crops, ANCHORS, 2) * 40
    return Answers(
        torch.rand(crops, ANCHORS) ** 4,
        torch.cat([corner, corner + 12], 2),
        torch.rand(crops, ANCHORS, 10) * 60,
        [],
    )


def loss_of(of: Batch, said: Outputs, config: DetectorConfig = CONFIG) -> tuple[Tensor, dict[str, Tensor]]:
    return Objective(config)(said, of, None, None, counts_of(of, None, ALONE))


def test_a_score_s_loss_is_divided_by_faces_and_never_by_anchors(mixed: Batch) -> None:
    """Silencing every background of equal score leaves the faces' part as it was."""
    said = (torch.zeros(4, ANCHORS), *outputs(4)[1:])
    alone = replace(mixed, label=torch.where(mixed.label == 1, 1, -1).to(torch.int8))
    assert loss_of(alone, said)[1]["score"].item() == pytest.approx(0.25 * 0.25 * np.log(2), rel=1e-4)
    faces, backgrounds = int((mixed.label == 1).sum()), int((mixed.label == 0).sum())
    expected = (0.25 * faces + 0.75 * backgrounds) * 0.25 * np.log(2) / faces
    assert loss_of(mixed, said)[1]["score"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("score", ["focal", "ohem"])
@pytest.mark.parametrize("box", ["diou", "giou", "smooth_l1"])
def test_without_a_face_every_loss_is_finite_and_scores_still_learn(score: str, box: str) -> None:
    config = DetectorConfig(sides=(64,), losses={"score": score, "box": box})
    said = tuple(of.requires_grad_() for of in outputs(2))
    loss, parts = loss_of(batch(crop(), crop()), said, config)
    loss.backward()
    assert loss.isfinite()
    assert parts["box"].item() == parts["landmark"].item() == 0
    assert (said[0].grad != 0).any()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_micro_batches_add_up_to_the_batch(mixed: Batch, most: int) -> None:
    said, taught = outputs(4), answers(4)
    counts, objective = counts_of(mixed, taught, ALONE), Objective(CONFIG)
    whole, parts = objective(said, mixed, taught, None, counts)
    together, sums = torch.zeros(()), dict.fromkeys(parts, 0.0)
    for part in micro_batches(4, most):
        some, share = mixed[part], (part.stop - part.start) / 4
        loss, found = objective(tuple(of[part] for of in said), some, taught[part], None, counts, share)
        together = together + share * loss
        sums = {name: sums[name] + share * found[name].item() for name in sums}
    assert together.item() == pytest.approx(whole.item(), rel=1e-5)
    assert sums == pytest.approx({name: of.item() for name, of in parts.items()}, rel=1e-4)


def test_points_are_divided_by_the_faces_that_have_them(mixed: Batch) -> None:
    known = mixed.offsets.isfinite().all(1)
    assert 0 < int(known.sum()) < len(known)
    counts = counts_of(mixed, None, ALONE)
    assert (counts.points.item(), counts.faces.item()) == (int(known.sum()), len(known))


def test_the_weights_are_the_recipe_s(mixed: Batch) -> None:
    config = DetectorConfig(
        sides=(64,),
        losses={"weight": 3.0, "box_weight": 5.0, "landmark_weight": 7.0},
        teacher={"weight": 11.0, "hint_weight": 13.0},
    )
    taught = answers(4)
    loss, parts = Objective(config)(
        outputs(4), mixed, taught, torch.tensor(2.0), counts_of(mixed, taught, ALONE)
    )
    by_label = parts["score"] + 5 * parts["box"] + 7 * parts["landmark"]
    by_teacher = parts["dense"] + 5 * parts["dense_box"] + 7 * parts["dense_landmark"]
    torch.testing.assert_close(loss, 13 * 2.0 + 3 * by_label + 11 * by_teacher)
