"""What a run minimises: the weighted sum of its losses, each reported by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.decode import anchors
from training.detector import losses
from training.detector.config import DetectorConfig
from training.detector.dataset import Batch
from training.detector.teacher import Answers
from training.loop.distributed import World

LABELS = ("score", "box", "landmark")
TAUGHT = ("dense", "dense_box", "dense_landmark")
Outputs = tuple[Tensor, Tensor, Tensor]  # logits [n, a], box deltas [n, a, 4], landmark offsets [n, a, 10]


@dataclass(frozen=True)
class Counts:
    """What a step's sums are divided by, at least 1 each; scalars. They are of the whole step, a rank's mean of them,
    so that a face weighs the same in whatever micro-batch and on whatever rank it comes."""

    faces: Tensor  # anchors that learn a face
    points: Tensor  # of them, those with known points
    taught: Tensor  # the dense teacher's scores, summed
    surely: Tensor  # of them, those of its boxes


def counts_of(batch: Batch, answers: Answers | None, world: World) -> Counts:
    """batch, answers: all of a rank's step."""
    scores = answers.scores if answers else torch.zeros(1)
    sums = [
        (batch.label == 1).sum(),
        batch.offsets.isfinite().all(1).sum(),
        scores.sum(),
        scores[scores >= losses.SURELY].sum(),
    ]
    together = torch.stack([of.float().to(world.device) for of in sums])
    return Counts(*world.mean(together).clamp(min=1))


class Objective:
    """The losses of one run."""

    def __init__(self, config: DetectorConfig) -> None:
        self.config = config

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        answers: Answers | None,
        hint: Tensor | None,
        counts: Counts,
        share: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the sum, the parts unweighted), each a mean over the samples: `batch` is the `share` of the step that is
        counted in `counts`. hint: the distance to the teacher's layers."""
        config, parts = self.config, self._labels(outputs, batch, counts)
        if answers is not None:
            parts |= self._taught(outputs, batch, answers, counts)
        parts = {name: of / share for name, of in parts.items()}
        loss = torch.zeros((), device=outputs[0].device)
        if hint is not None:
            parts["hints"] = hint
            loss = config.teacher.hint_weight * hint
        for weight, names in ((config.losses.weight, LABELS), (config.teacher.weight, TAUGHT)):
            if names[0] in parts:
                score, box, landmark = (parts[name] for name in names)
                loss = loss + weight * (
                    score + config.losses.box_weight * box + config.losses.landmark_weight * landmark
                )
        return loss, parts

    def _labels(self, outputs: Outputs, batch: Batch, counts: Counts) -> dict[str, Tensor]:
        """The three losses against the labels."""
        logits, deltas, offsets = outputs
        asked, positive = self.config.losses, batch.label == 1
        score = losses.focal if asked.score == "focal" else losses.hardest
        errors = losses.box_errors(
            asked.box, deltas[positive], batch.anchors, batch.boxes, self.config.anchors
        )
        return {
            "score": score(logits, batch.label) / counts.faces,
            "box": errors.sum() / counts.faces,
            "landmark": losses.landmark_error(offsets[positive], batch.offsets) / counts.points,
        }

    def _taught(self, outputs: Outputs, batch: Batch, answers: Answers, counts: Counts) -> dict[str, Tensor]:
        """The three losses against a dense teacher's answers."""
        logits, deltas, offsets = outputs
        side, layout = batch.pixels.shape[1], self.config.anchors
        laid = torch.from_numpy(np.array(anchors(side, side, layout))).to(logits.device)
        box, landmark = losses.imitated(deltas, offsets, answers, laid, layout)
        return {
            "dense": losses.quality_focal(logits, answers.scores) / counts.taught,
            "dense_box": box / counts.surely,
            "dense_landmark": landmark / counts.surely,
        }
