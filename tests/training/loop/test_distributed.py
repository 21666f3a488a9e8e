"""One process is left as it is; two are together what one would be, and no rank waits for ever for another."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.training.ranks import on_ranks
from training.config import BadConfig
from training.loop.distributed import (
    ALONE,
    World,
    average,
    broadcast,
    clip_gradients,
    collect,
    gather,
    split,
    start,
)

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("environment", [{}, TORCHRUN], ids=["plain", "torchrun with one process"])
def test_one_process_starts_nothing(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with start("cpu") as world:
        assert world == ALONE
        assert world.first
        assert not dist.is_initialized()


def test_for_one_process_every_exchange_is_the_identity() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model(torch.randn(4, 2)).square().sum().backward()
    before = [
        tensor.clone() for tensor in (*model.state_dict().values(), *(p.grad for p in model.parameters()))
    ]
    average(model, ALONE)
    broadcast(model, ALONE)
    ALONE.wait()
    after = (*model.state_dict().values(), *(p.grad for p in model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    x = torch.tensor([1.0, -2.0])
    assert gather(x, ALONE) is ALONE.sum(x) is ALONE.maximum(x) is ALONE.mean(x) is x
    assert x.tolist() == [1.0, -2.0]
    assert torch.equal(collect(x, 2, ALONE), x)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"MASTER_ADDR": None, "LOCAL_RANK": None}, "not LOCAL_RANK, MASTER_ADDR: start with torchrun"),
        ({"RANK": "two"}, "whole numbers.*'two'"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "RANK 3 does not lie in 0 … WORLD_SIZE − 1 = 2"),
        ({"RANK": "-1"}, "RANK -1"),
    ],
)
def test_a_half_environment_is_refused_by_name(
    change: dict[str, str | None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (TORCHRUN | change).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig, match=named), start("cpu"):
        pass


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadConfig, match="torch sees no GPU"), start("cuda"):
        pass
    with pytest.raises(BadConfig, match="one of auto, cpu, cuda"), start("tpu"):  # type: ignore[arg-type]
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadConfig, match="LOCAL_RANK 2, but this machine has 2 GPU"), start("auto"):
        pass


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [8, 9, 23, 2_059_906])
def test_the_parts_of_a_split_are_even_and_lie_one_after_the_other(count: int, size: int) -> None:
    parts = [split(count, World(rank, size)) for rank in range(size)]
    assert [len(part) for part in parts] == [count // size + (rank < count % size) for rank in range(size)]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == count


def test_seeds_differ_by_rank_run_and_step_and_are_the_same_again() -> None:
    seeds = [
        World(rank, 4).seed(*place)
        for rank in range(4)
        for place in [(), (0,), (7,), (7, 0), (7, 1), (8,), (0, 7), (7, 0, 0)]
    ]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # a CPU's generator takes the lower half only
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert World(2, 4).seed(7, 1) == World(2, 4).seed(7, 1)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def faces() -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()


def part_of_the_loss(output: torch.Tensor, world: World) -> torch.Tensor:
    """A loss that ties all faces together, of which each rank has some columns of the output."""
    columns = split(output.shape[1], world)
    return (output[:, columns.start : columns.stop].sum(0) ** 3).sum() / len(output)


def exchanges() -> dict[str, Any]:
    """Everything that two ranks can exchange, once."""
    found: dict[str, Any] = {}
    with start("cpu") as world:
        mine = faces().chunk(world.size)[world.rank]
        x = torch.tensor([1.0, -2.0]) * (world.rank + 1)
        found["sum"], found["maximum"], found["mean"] = (
            of(x.clone()).tolist() for of in (world.sum, world.maximum, world.mean)
        )
        found["whole"] = collect(torch.full((len(split(5, world)), 2), float(world.rank)), 5, world)

        model = small_model()
        part_of_the_loss(gather(model(mine), world), world).backward()
        average(model, world)
        found["gathered"] = [parameter.grad for parameter in model.parameters()]

        model = small_model()
        for micro in mine.split(2):
            (model(micro).square().mean() / 2).backward()
        average(model, world)
        found["accumulated"] = [parameter.grad for parameter in model.parameters()]

        model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, affine=False))
        model[1].running_mean.fill_(world.rank)
        if world.first:
            model[0].weight.grad = torch.full((1, 1), 6.0)
        average(model, world)
        found["statistics"] = model[1].running_mean.item()
        found["one gradient"] = model[0].weight.grad.item()

        torch.manual_seed(world.rank)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
        broadcast(model, world)
        found["broadcast"] = model.state_dict()

        rows = nn.Parameter(torch.zeros(4, 1))
        for _ in range(2):  # named twice: 2 + 2 on the first rank, nothing on the second
            nn.functional.embedding(torch.tensor([1]), rows, sparse=True).sum().mul(
                2.0 * world.first
            ).backward()
        common = nn.Parameter(torch.zeros(1))
        common.grad = torch.tensor([3.0])
        found["length"] = clip_gradients([common], [rows], 1.0, world).item()
        found["clipped"] = [common.grad.item(), rows.grad.to_dense()[1].item()]
        common.grad, rows.grad = torch.tensor([1.0]), torch.full((4, 1), torch.inf if world.rank else 0.0)
        found["broken"] = clip_gradients([common], [rows], 1.0, world).item()
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(exchanges, 2, tmp_path_factory.mktemp("two"))


def test_sum_maximum_and_mean_are_alike_on_both_ranks(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert (found["sum"], found["maximum"], found["mean"]) == ([3.0, -6.0], [2.0, -2.0], [1.5, -3.0])


def test_the_first_rank_collects_shards_of_different_sizes(two: list[dict[str, Any]]) -> None:
    assert two[0]["whole"][:, 0].tolist() == [0, 0, 0, 1, 1]
    assert two[1]["whole"] is None


def test_a_gathered_loss_has_the_gradient_that_one_process_would_have(two: list[dict[str, Any]]) -> None:
    model = small_model()
    part_of_the_loss(model(faces()), ALONE).backward()
    for found in two:
        torch.testing.assert_close(found["gathered"], [parameter.grad for parameter in model.parameters()])


def test_accumulation_and_average_are_the_gradient_of_the_whole_batch(two: list[dict[str, Any]]) -> None:
    model = small_model()
    model(faces()).square().mean().backward()
    for found in two:
        torch.testing.assert_close(found["accumulated"], [parameter.grad for parameter in model.parameters()])


def test_running_statistics_are_averaged_and_a_missing_gradient_is_zero(two: list[dict[str, Any]]) -> None:
    assert [found["statistics"] for found in two] == [0.5, 0.5]
    assert [found["one gradient"] for found in two] == [3.0, 3.0]


def test_after_a_broadcast_every_rank_has_the_first_one_s_model(two: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    for found in two:
        assert all(torch.equal(found["broadcast"][name], expected[name]) for name in expected)


def test_one_factor_clips_the_model_and_every_rank_s_rows(two: list[dict[str, Any]]) -> None:
    for found, row in zip(two, (4 / 5, 0.0), strict=True):
        assert found["length"] == pytest.approx(5.0)  # 3 in the model, 4 in a row of the first rank
        assert found["clipped"] == pytest.approx([3 / 5, row])


def test_a_gradient_that_is_infinite_on_one_rank_is_seen_on_both(two: list[dict[str, Any]]) -> None:
    assert [found["broken"] for found in two] == [torch.inf, torch.inf]


def test_short_gradients_are_not_lengthened() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.3, 0.4])
    assert clip_gradients([weight], [], 1.0, ALONE).item() == pytest.approx(0.5)
    assert weight.grad.tolist() == pytest.approx([0.3, 0.4])


def one_fails() -> str:
    try:
        with start("cpu") as world:
            if not world.first:
                raise MemoryError("this rank has gone")
            world.sum(torch.ones(1))
    except (MemoryError, RuntimeError) as error:
        return type(error).__name__
    return "nothing was noticed"


def test_the_others_notice_a_rank_that_fails(tmp_path: Path) -> None:
    assert on_ranks(one_fails, 2, tmp_path) == ["RuntimeError", "MemoryError"]


def one_is_silent() -> str:
    with start("cpu", timeout=timedelta(seconds=4)) as world:
        if not world.first:
            time.sleep(8)
            return "asleep"
        try:
            world.sum(torch.ones(1))
        except RuntimeError as error:
            return str(error)
    return "nothing was noticed"


@pytest.mark.slow
def test_nobody_waits_for_ever_for_a_silent_rank(tmp_path: Path) -> None:
    first, second = on_ranks(one_is_silent, 2, tmp_path)
    assert "Timed out" in first
    assert second == "asleep"
