from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle.decode import AnchorLayout, anchors, decode
from training.config import BadConfig, read_config
from training.data.widerface import Photograph
from training.detector.config import DetectorConfig
from training.detector.dataset import Photographs, batch_of, keep
from training.detector.selection import find, select
from training.detector.train import Diverged, Run, build, train, train_step, trained
from training.loop import checkpoint

SMALL = DetectorConfig(
    widths=(8, 8, 8, 8),
    depths=(1, 1, 1, 1),
    pyramid=8,
    side=64,
    batch=4,
    epochs=3,
    warmup_steps=2,
    evaluate_epochs=100,
    compile=False,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As a run sets it; threads that wait for each other make these tiny layers ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Twelve pictures of noise with one bright oblong each, which stands for a face."""
    rng = np.random.default_rng(0)
    drawn = []
    for index in range(12):
        pixels = rng.integers(0, 80, (96, 128, 3), np.uint8)
        x, y = rng.integers(5, 60), rng.integers(5, 40)
        pixels[y : y + 40, x : x + 32] = 220
        box = np.array([[x, y, x + 32, y + 40]], np.float32) - 0.5
        points = np.array(
            [[[8 + x, 10 + y], [24 + x, 10 + y], [16 + x, 20 + y], [10 + x, 30 + y], [22 + x, 30 + y]]]
        )
        drawn.append(
            Photograph(f"drawn/{index}", pixels, 1.0, box, np.array([False]), points.astype(np.float32))
        )
    return keep(drawn)


def test_a_batch_depends_on_the_step_alone(photographs: Photographs) -> None:
    first, again, other = (batch_of(photographs, step, SMALL) for step in (5, 5, 6))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.label, again.label)
    assert not torch.equal(first.pixels, other.pixels)


def test_targets_lead_back_to_the_boxes(photographs: Photographs) -> None:
    batch = batch_of(photographs, 0, SMALL)
    assert batch.pixels.shape == (4, 64, 64, 3)
    assert batch.label.shape == (4, len(anchors(64, 64, AnchorLayout())))
    assert int((batch.label == 1).sum()) == len(batch.boxes) == len(batch.anchors) > 0
    _, points = decode(
        np.zeros((len(batch.boxes), 4)), batch.offsets.numpy(), batch.anchors.numpy(), SMALL.anchors
    )
    inside = (points >= batch.boxes[:, None, :2].numpy() - 8) & (
        points <= batch.boxes[:, None, 2:].numpy() + 8
    )
    assert inside.mean() > 0.9  # boxes are clipped to the crop, points are not


def test_fewer_photographs_than_a_batch_are_repeated(photographs: Photographs) -> None:
    few = Photographs(photographs.every[:2], photographs.halves[:2])
    assert len(batch_of(few, 0, SMALL).pixels) == SMALL.batch


def test_steps_lower_the_loss(photographs: Photographs) -> None:
    run = build(SMALL)
    run.model.train()
    batch = batch_of(photographs, 0, SMALL)
    losses = [train_step(run, run.model, batch, SMALL)["loss"] for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint.load(train(SMALL, tmp_path / "whole", photographs, photographs.every[:2]))
    monkeypatch.setattr("training.detector.train.train_step", _interrupt_after(5))
    with pytest.raises(KeyboardInterrupt):
        train(SMALL.model_copy(update={"checkpoint_minutes": 1e-9}), tmp_path / "parts", photographs, [])
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "parts" / "last.pt")["step"] == 5
    parts = checkpoint.load(train(SMALL, tmp_path / "parts", photographs, photographs.every[:2]))
    assert parts["step"] == whole["step"] == 9
    for name, value in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], value, rtol=0, atol=0)
    for name, value in whole["average"].items():
        torch.testing.assert_close(parts["average"][name], value, rtol=0, atol=0)
    model, config = trained(tmp_path / "parts")
    assert not model.training
    assert config.widths == SMALL.widths
    assert select(model, [], config) == {}
    assert len(find(model, photographs.every[0].pixels, config, min_score=2.0)) == 0


def _interrupt_after(steps: int) -> Callable[..., dict[str, float]]:
    def step(run: Run, *rest: Any) -> dict[str, float]:
        if run.step == steps:
            raise KeyboardInterrupt
        return train_step(run, *rest)

    return step


def test_the_checkpoint_of_another_kind_or_shape_is_refused_by_name(
    photographs: Photographs, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "other" / "last.pt", {"kind": "embedder"})
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="not a detector"):
        train(SMALL, tmp_path / "other", photographs, [])
    checkpoint.save(tmp_path / "wide" / "last.pt", build(SMALL).state(SMALL))
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="another model"):
        train(SMALL.model_copy(update={"pyramid": 16}), tmp_path / "wide", photographs, [])


def test_a_loss_that_is_not_a_number_stops_the_run(photographs: Photographs) -> None:
    run = build(SMALL)
    next(run.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(Diverged, match="step 0"):
        train_step(run, run.model, batch_of(photographs, 0, SMALL), SMALL)


def test_the_committed_configuration_is_valid_and_a_wrong_key_is_named(
    repository: Path, tmp_path: Path
) -> None:
    assert read_config(DetectorConfig, repository / "training" / "configs" / "detector.toml").epochs > 0
    (tmp_path / "wrong.toml").write_text("epoch = 3\n")
    with pytest.raises(BadConfig, match="epoch"):
        read_config(DetectorConfig, tmp_path / "wrong.toml")
