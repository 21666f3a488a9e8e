"""A run that was stopped goes on as if it had not been, and bad beginnings are refused by name."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle.decode import AnchorLayout
from tests.training.detector.oblongs import SMALL, oblongs
from tests.training.ranks import FOLDER, on_ranks
from training.config import BadConfig
from training.data.identities import BadData
from training.data.jpeg_cache import cached
from training.data.photographs import Photograph
from training.data.scenes import draw_scene
from training.detector import train as run
from training.detector.backbones import BACKBONES
from training.detector.config import Assignment, Augmentation, Backbone, DenseTeaching, DetectorConfig, Losses
from training.detector.dataset import TENSORS, Batch, Photographs, batch_of, keep
from training.detector.student import build, model_of
from training.detector.teacher import Answers
from training.embedder.backbones.cost import macs
from training.loop import checkpoint, tracking
from training.loop.diagnosis import Diverged
from training.loop.distributed import ALONE, World, start
from training.loop.imitation import channel_scales
from training.loop.optimiser import Optimiser
from training.loop.records import PHOTOGRAPHS, Record
from training.loop.schedule import Schedule

STEPS = 9  # of SMALL on twelve photographs
FOUR = np.arange(4)


class Stopped(Exception):
    """Somebody pulled the plug."""


class Drawn:
    """A dense teacher whose answers are a function of the crops."""

    def ask(self, crops: np.ndarray) -> Answers:
        chance = torch.Generator().manual_seed(int(crops.sum(dtype=np.int64)) % 2**31)
        count, side = len(crops), crops.shape[1]
        cells = [(side // stride) ** 2 * 2 for stride in (8, 16, 32)]
        corner = torch.rand(count, sum(cells), 2, generator=chance) * side
        return Answers(
            torch.rand(count, sum(cells), generator=chance) ** 4,
            torch.cat([corner, corner + 20], 2),
            torch.rand(count, sum(cells), 10, generator=chance) * side,
            [
                torch.rand(count, 8, side // stride, side // stride, generator=chance)
                for stride in (8, 16, 32)
            ],
        )

    def scales(self, crops: np.ndarray) -> list[torch.Tensor]:
        return channel_scales(self.ask(crops).features)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As a run sets it; threads that wait for each other make these tiny layers ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _quick_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes a run half a second before its first step."""
    monkeypatch.setattr(run, "peak_flops", lambda device, dtype: 1e11)
    monkeypatch.setattr(tracking, "_commit", lambda: None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda folder, initial: None)


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    return keep(oblongs(12))


def levels(*strides: int) -> AnchorLayout:
    """Two anchors a cell, as large as two and four of it."""
    return AnchorLayout(strides=strides, sizes=tuple((2.0 * of, 4.0 * of) for of in strides))


def changed(**fields: Any) -> DetectorConfig:
    return SMALL.model_copy(update=fields)


def weights(file: Path, steps: int = STEPS) -> dict[str, torch.Tensor]:
    state = checkpoint.load(file)
    assert state["step"] == steps
    return {f"{part}.{name}": of for part in ("model", "average") for name, of in state[part].items()}


def alike(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch(photographs: Photographs, config: DetectorConfig = SMALL, step: int = 0) -> Batch:
    return batch_of(photographs, FOUR, step, 0, config)


def prepared(config: DetectorConfig = SMALL, teacher: Any = None, plain: Batch | None = None) -> run.Training:
    training = run.prepare(config, plain, teacher, ALONE)
    training.student.model.train()
    return training


def test_steps_lower_the_loss(photographs: Photographs) -> None:
    training, same = prepared(), batch(photographs)
    losses = [run.train_step(training, same, 2e-3)[0]["loss"] for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(("teacher", "optimiser"), [(None, "adamw"), (Drawn(), "adamw"), (None, "muon")])
def test_a_run_killed_in_the_middle_of_an_epoch_ends_bit_for_bit_like_one_that_was_not(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Any, optimiser: Any
) -> None:
    hints = DenseTeaching(layers=("a", "b", "c"), hint_steps=6, forced_steps=3)
    config = changed(teacher=hints, sides=(64, 96), optimiser=Optimiser(name=optimiser))
    whole = run.train(config, tmp_path / "whole", photographs, [], teacher)
    step = run.train_step

    def pulled(training: run.Training, *rest: Any) -> Any:
        if training.student.step == 5:  # one step beyond the checkpoint at four: it is lost and taken again
            raise Stopped
        return step(training, *rest)

    monkeypatch.setattr(run, "train_step", pulled)
    with pytest.raises(Stopped):
        run.train(config, tmp_path / "stopped", photographs, [], teacher)
    assert checkpoint.load(tmp_path / "stopped" / "last.pt")["step"] == 4
    monkeypatch.setattr(run, "train_step", step)
    resumed = run.train(config, tmp_path / "stopped", photographs, [], teacher)
    assert alike(weights(whole), weights(resumed))


def test_workers_change_nothing_but_the_time(photographs: Photographs, tmp_path: Path) -> None:
    alone = run.train(SMALL, tmp_path / "alone", photographs, [])
    helped = run.train(changed(workers=2), tmp_path / "helped", photographs, [])
    assert alike(weights(alone), weights(helped))


def test_ctrl_c_ends_with_a_checkpoint_of_the_step_just_taken(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = run.train_step

    def pressed(training: run.Training, *rest: Any) -> Any:
        if training.student.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(training, *rest)

    monkeypatch.setattr(run, "train_step", pressed)
    with pytest.raises(KeyboardInterrupt):
        run.train(SMALL, tmp_path, photographs, [])
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3


def test_a_full_disk_keeps_the_checkpoint_before(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(handle: int) -> None:
        if (tmp_path / "last.pt").exists() and (tmp_path / "last.pt.partial").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.pt was not written, the one before is kept"):
        run.train(SMALL, tmp_path, photographs, [])
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_past_a_corrupt_picture_and_reports_it_once(
    photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    some = keep(cached(tmp_path / "photographs.jpegs", lambda: photographs.every))
    broken: Any = some.every[3].pixels
    with broken.file.open("r+b") as file:
        file.seek(broken.offset)
        file.write(bytes(broken.length))
    last = run.train(changed(workers=workers), tmp_path / "run", some, [])
    assert checkpoint.load(last)["step"] == STEPS
    said = "".join(capsys.readouterr())
    assert said.count("left out: drawn/3: not a readable picture") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["unread"] == pytest.approx(3 / STEPS)  # once in each of three epochs


def test_the_checkpoint_of_another_backbone_or_shape_is_refused_by_name_and_kept(
    photographs: Photographs, tmp_path: Path
) -> None:
    for config, named in (
        (
            changed(backbone=Backbone(name="mobilenet", width=0.25)),
            "backbone .*name='mobilenet'.*name='resnet'",
        ),
        (changed(pyramid=16), "pyramid 16, the configuration says 8"),
        (changed(head=(8,)), "head"),
    ):
        file = tmp_path / "last.pt"
        checkpoint.save(file, build(config).state(config))
        before = file.read_bytes()
        with pytest.raises(checkpoint.UnreadableCheckpoint, match=f"another model.*{named}"):
            run.train(SMALL, tmp_path, photographs, [])
        assert file.read_bytes() == before


def test_the_checkpoint_of_an_embedder_or_of_nobody_is_refused(
    photographs: Photographs, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "last.pt", {"kind": "embedder", "config": {}})
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="checkpoint of 'embedder', not of 'detector'"):
        run.train(SMALL, tmp_path, photographs, [])
    checkpoint.save(tmp_path / "last.pt", {"kind": "detector", "config": {"size": 3}})
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="another version"):
        run.train(SMALL, tmp_path, photographs, [])


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_layer(photographs: Photographs) -> None:
    training = prepared()
    next(training.student.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"step 0: .*model\.backbone\.stem\.0\.0\.weight"):
        run.train_step(training, batch(photographs), 1e-3)
    assert training.student.step == 0


def test_fewer_photographs_than_a_batch_are_refused_with_the_way_out(
    photographs: Photographs, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match="lower `batch`"):
        run.train(changed(batch=13), tmp_path, photographs, [])


def test_a_run_too_short_for_its_schedule_is_refused_before_it_begins(
    photographs: Photographs, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match="no room for a warm-up"):
        run.train(changed(schedule=Schedule(warmup=50)), tmp_path / "run", photographs, [])
    assert not (tmp_path / "run").exists()


def test_a_step_follows_the_schedule_with_restarts(photographs: Photographs, tmp_path: Path) -> None:
    schedule = Schedule(name="cosine_restarts", warmup=1, floor=0.1, cycles=2)
    run.train(changed(schedule=schedule), tmp_path, photographs, [])
    rate = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["rate"]
    assert rate == pytest.approx(2e-3 * schedule.factor(STEPS - 1, STEPS))


@pytest.mark.parametrize(
    "fields",
    [
        {"optimiser": Optimiser(name="sgd", learning_rate=0.01)},
        {"micro_batch": 2},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"losses": Losses(score="ohem", box="giou")},
        {"losses": Losses(box="smooth_l1")},
        {"assignment": Assignment(name="atss")},
        {"anchors": levels(4, 8, 16, 32, 64)},
        {
            "anchors": levels(16, 32, 64, 128),
            "sides": (128,),
            "assignment": Assignment(name="atss", nearest=2),
        },
        {"anchors": levels(8, 16)},
    ],
)
def test_every_choice_of_the_recipe_takes_a_step(photographs: Photographs, fields: dict[str, Any]) -> None:
    config = changed(**fields)
    training = prepared(config)
    before = {name: of.clone() for name, of in training.student.model.state_dict().items()}
    losses, advice = run.train_step(training, batch(photographs, config), 1e-3)
    assert np.isfinite(list(losses.values())).all()
    assert losses.keys() >= {"loss", "score", "box", "landmark", "gradient"}
    assert not advice
    after = training.student.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_micro_batches_of_settled_statistics_are_the_whole_batch_s_step(photographs: Photographs) -> None:
    """Normalised by the batch, the parts would see other statistics: in eval mode they see the same."""
    found = []
    for micro_batch in (None, 1):
        config = changed(micro_batch=micro_batch, optimiser=Optimiser(name="sgd"))
        training = prepared(config, Drawn())
        training.student.model.eval()
        losses, _ = run.train_step(training, batch(photographs, config), 1.0)
        found.append((losses, torch.cat([p.flatten() for p in training.student.model.parameters()])))
    (whole, after), (parts, after_parts) = found
    assert parts == pytest.approx(whole, rel=1e-4)
    torch.testing.assert_close(after_parts, after, rtol=1e-4, atol=1e-5)


def test_the_dense_teacher_s_losses_come_and_the_hints_go(photographs: Photographs) -> None:
    config = changed(teacher=DenseTeaching(layers=("a", "b", "c"), hint_steps=2, forced_steps=1))
    same, teacher = batch(photographs, config), Drawn()
    training = prepared(config, teacher, same)
    named = [run.train_step(training, same, 1e-3)[0].keys() for _ in range(3)]
    dense = {"dense", "dense_box", "dense_landmark"}
    assert [("hints" in of, dense <= of) for of in named] == [(True, True), (True, True), (False, True)]


def test_the_dense_teacher_is_asked_about_clear_crops(photographs: Photographs) -> None:
    config = changed(augmentation=Augmentation(degrading=1.0))
    poor, asked = batch(photographs, config), []

    class Recording(Drawn):
        def ask(self, crops: np.ndarray) -> Answers:
            asked.append(crops)
            return super().ask(crops)

    run.train_step(prepared(config, Recording(), poor), poor, 1e-3)
    assert poor.clear is not None
    np.testing.assert_array_equal(asked[-1], poor.clear.numpy())
    assert (asked[-1] != poor.pixels.numpy()).any()


def test_a_run_leaves_its_metrics_pictures_best_and_last_behind(
    photographs: Photographs, tmp_path: Path
) -> None:
    config = changed(evaluate_epochs=1, epochs=2, schedule=Schedule(warmup=2))
    last = run.train(config, tmp_path, photographs, photographs.every[:2])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "recall@0.1fp" in line] == [3, 6]
    assert checkpoint.load(tmp_path / "best.pt")["best"]["metric"] == "ap"
    assert checkpoint.load(last)["step"] == 6
    events = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert b"selection/1" in events
    assert json.loads((tmp_path / "config.json").read_text())["config"]["backbone"]["name"] == "resnet"


def test_the_best_checkpoint_is_the_one_of_the_highest_recall(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls = iter((0.2, 0.7, 0.5))
    monkeypatch.setattr(run, "select", lambda *_: {run.GATED: next(recalls)})
    monkeypatch.setattr(run, "show", lambda *_: None)
    run.train(changed(evaluate_epochs=1), tmp_path, photographs, photographs.every[:1])
    best = checkpoint.load(tmp_path / "best.pt")
    assert (best["step"], best["best"]["value"]) == (6, 0.7)


def test_a_pass_is_counted_as_twice_its_products() -> None:
    assert run.flops(SMALL, 64) == 2 * macs(model_of(SMALL), (1, 3, 64, 64))


# many processes


def settled(config: DetectorConfig, world: World) -> run.Training:
    """With the statistics of no batch: in eval mode two halves see what the whole sees."""
    training = run.prepare(config, None, None, world)
    training.student.model.eval()
    return training


def two_steps(training: run.Training, photographs: Photographs, rows: np.ndarray) -> list[dict[str, float]]:
    """Of crops that depend on the step alone, of which this process takes some rows."""
    losses = []
    for step in range(2):
        whole = batch_of(photographs, np.arange(8), step, 0, training.config)
        mine = [whole[slice(row, row + 1)] for row in rows.tolist()]
        tensors = {name: torch.cat([getattr(of, name) for of in mine]) for name in TENSORS}
        losses.append(run.train_step(training, Batch(**tensors), 1e-2)[0])
    return losses


TWO = SMALL.model_copy(update={"optimiser": Optimiser(name="sgd"), "batch": 2})


def one_of_two() -> dict[str, Any]:
    """What a rank does in the test below."""
    folder = Path(os.environ[FOLDER])
    run.peak_flops = lambda device, dtype: 1e9
    tracking._tensorboard = lambda folder, initial: None
    run.select, run.show = lambda *_: {run.GATED: 0.5}, lambda *_: None
    photographs = keep(oblongs(12))
    with start("cpu") as world:
        training = settled(SMALL.model_copy(update={"optimiser": Optimiser(name="sgd")}), world)
        told: dict[str, Any] = {"losses": two_steps(training, photographs, np.arange(4) + 4 * world.rank)}
        told["weights"] = {name: of.clone() for name, of in training.student.model.state_dict().items()}
        run.train(TWO, folder / "whole", photographs, photographs.every[:1], Drawn(), world)
        told["stopped"] = stopped_by_the_other(folder / "stopped", photographs, world)
        told["failed"] = failed_by_the_first(folder / "failed", photographs, world)
        run.train(TWO, folder / "stopped", photographs, [], Drawn(), world)
    return told


def stopped_by_the_other(folder: Path, photographs: Photographs, world: World) -> str:
    taken = run.train_step

    def watched(training: run.Training, *rest: Any) -> Any:
        if not world.first and training.student.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return taken(training, *rest)

    run.train_step = watched
    try:
        run.train(TWO, folder, photographs, [], Drawn(), world)
    except KeyboardInterrupt:
        return f"stopped at {checkpoint.load(folder / 'last.pt')['step']}"
    finally:
        run.train_step = taken
    return "not stopped"


def failed_by_the_first(folder: Path, photographs: Photographs, world: World) -> str:
    def refuse(path: Path, state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save, kept = refuse, checkpoint.save
    try:
        run.train(TWO, folder, photographs, [], Drawn(), world)
    except Exception as error:
        return type(error).__name__
    finally:
        checkpoint.save = kept
    return "not failed"


def test_two_processes_take_the_steps_of_one_and_stop_and_fail_together(tmp_path: Path) -> None:
    training = settled(changed(optimiser=Optimiser(name="sgd")), ALONE)
    losses = two_steps(training, keep(oblongs(12)), np.arange(8))
    told = on_ranks(one_of_two, 2, tmp_path)
    for of in told:
        for step in range(2):
            assert of["losses"][step] == pytest.approx(losses[step], rel=1e-4)
        torch.testing.assert_close(
            of["weights"], dict(training.student.model.state_dict()), rtol=1e-4, atol=1e-5
        )
    assert [of["stopped"] for of in told] == ["stopped at 3"] * 2
    assert [of["failed"] for of in told] == ["OSError", "FirstFailed"]
    whole, resumed = (weights(tmp_path / name / "last.pt") for name in ("whole", "stopped"))
    assert alike(whole, resumed)
    assert checkpoint.load(tmp_path / "whole" / "best.pt")["step"] == STEPS


# what a run says, and remembers


def test_without_its_teacher_the_configuration_s_part_is_switched_off_aloud(
    photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = changed(teacher=DenseTeaching(layers=("a", "b", "c"), hint_steps=6), epochs=2)
    state = checkpoint.load(run.train(asked, tmp_path / "off", photographs, []))
    assert state["config"]["teacher"] == DenseTeaching(weight=0).model_dump(mode="json")
    assert (
        capsys.readouterr().err.count("no dense teacher: the configuration's part [teacher] is switched off")
        == 1
    )
    run.train(SMALL, tmp_path / "never", photographs, [])
    assert "no dense teacher" not in capsys.readouterr().err
    with pytest.raises(BadConfig, match=r"losses\.weight = 0.*give a dense teacher"):
        run.train(changed(losses=Losses(weight=0)), tmp_path / "nothing", photographs, [])


def test_a_teacher_of_other_anchors_is_refused_before_the_first_step(
    photographs: Photographs, tmp_path: Path
) -> None:
    three = AnchorLayout(sizes=((16, 24, 32), (64, 128), (256, 512)))
    with pytest.raises(
        BadConfig, match="two anchors a cell of strides 8, 16 and 32, the configuration 3 of 8"
    ):
        run.train(changed(anchors=three), tmp_path / "run", photographs, [], Drawn())
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_knows_its_photographs_also_those_it_no_longer_sees(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "select", lambda *_: {run.GATED: 0.5})
    monkeypatch.setattr(run, "show", lambda *_: None)
    first, second = (Record(name=of, pictures=12, faces=12, names=of, labels="official") for of in "ab")
    run.train(changed(epochs=1, schedule=Schedule()), tmp_path, replace(photographs, records=(first,)), [])
    last = run.train(SMALL, tmp_path, replace(photographs, records=(second,)), photographs.every[:1])
    for file in (last, tmp_path / "best.pt"):
        assert checkpoint.load(file)[PHOTOGRAPHS] == [first.model_dump(), second.model_dump()]


def test_a_run_begins_with_another_s_weights_once(
    photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run.train(SMALL, tmp_path / "other", photographs, [])
    slow = changed(optimiser=Optimiser(learning_rate=1e-9, weight_decay=0), epochs=2)
    begun = run.train(slow, tmp_path / "begun", photographs, [], begin=other)
    assert "begins with" in capsys.readouterr().err
    state = checkpoint.load(begun)
    (ancestor,) = state["lineage"]
    assert (ancestor["backbone"], ancestor["steps"]) == ("resnet 8-8-8-8", STEPS)
    for name, of in checkpoint.load(other)["average"].items():
        if name.endswith("weight"):
            torch.testing.assert_close(state["model"][name], of, rtol=0, atol=1e-6)
    again = run.train(slow.model_copy(update={"epochs": 3}), tmp_path / "begun", photographs, [], begin=other)
    assert checkpoint.load(again)["step"] == STEPS
    assert "begins with" not in capsys.readouterr().err
    assert checkpoint.load(again)["lineage"] == state["lineage"]


def test_less_than_a_step_is_refused(photographs: Photographs, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"epochs = 0\.2 of 3 steps is less than a step"):
        run.train(changed(epochs=0.2), tmp_path, photographs, [])


def test_what_a_resumed_run_is_asked_for_wins_over_what_it_was_begun_with(
    photographs: Photographs, tmp_path: Path
) -> None:
    run.train(changed(epochs=2), tmp_path, photographs, [])
    longer = changed(optimiser=Optimiser(weight_decay=0.3))
    state = checkpoint.load(run.train(longer, tmp_path, photographs, []))
    assert state["step"] == STEPS
    assert [group["weight_decay"] for group in state["optimiser"]["param_groups"]] == [0.3, 0.0]
    with pytest.raises(
        checkpoint.UnreadableCheckpoint, match="was made with adamw, this run has sgd: set optimiser"
    ):
        run.train(changed(optimiser=Optimiser(name="sgd")), tmp_path, photographs, [])


def scenes(count: int) -> Photographs:
    """Drawn people, 160 × 120."""
    photographs = []
    for number in range(count):
        scene = draw_scene(number, 160, 120)
        ignored = np.zeros(len(scene.boxes), bool)
        photographs.append(
            Photograph(f"scene/{number}", scene.pixels, 1.0, scene.boxes, ignored, scene.landmarks)
        )
    return keep(photographs)


EVERY = [
    Backbone(),
    Backbone(widths=(8, 8, 16, 16)),
    Backbone(widths=(24, 32, 48, 64), depths=(2, 1, 1, 1), stem=16),
    Backbone(name="resnet18", width=0.25),
    Backbone(name="resnet18", width=0.5),
    Backbone(name="resnet18"),
    Backbone(name="resnet34", width=0.375),
    Backbone(name="resnet34"),
    Backbone(name="resnet50"),
    Backbone(name="mobilenet", width=0.25),
    Backbone(name="mobilenet", width=0.5),
    Backbone(name="mobilenet"),
]


def test_every_name_of_a_backbone_is_among_those_that_are_trained() -> None:
    assert {of.name for of in EVERY} == set(BACKBONES)


@pytest.mark.parametrize("backbone", EVERY, ids=str)
def test_each_backbone_takes_a_step_on_drawn_faces(backbone: Backbone) -> None:
    """A whole one: every layer moves, and stays a number."""
    config = changed(backbone=backbone, batch=2)
    training = prepared(config)
    before = {name: of.detach().clone() for name, of in training.student.model.named_parameters()}
    losses, _ = run.train_step(training, batch_of(scenes(2), np.arange(2), 0, 0, config), 1e-3)
    assert np.isfinite(list(losses.values())).all()
    for name, of in training.student.model.named_parameters():
        assert of.isfinite().all(), name
        assert not torch.equal(of, before[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("backbone", EVERY, ids=str)
def test_each_backbone_learns_drawn_faces(backbone: Backbone) -> None:
    """Four crops by heart: after two dozen steps every loss is less than half of what it was, their sum a quarter."""
    config = changed(backbone=backbone, pyramid=32, sides=(64,), batch=4)
    training = prepared(config)
    same = batch_of(scenes(4), FOUR, 0, 0, config)
    losses = [run.train_step(training, same, 5e-3)[0] for _ in range(24)]
    for name in ("score", "box", "landmark"):
        assert losses[-1][name] < losses[0][name] / 2
    assert losses[-1]["loss"] < losses[0]["loss"] / 4  # measured: a tenth at most
