"""Training on many processes, which on one process is nothing at all: every function here is then the identity.

A run started by `torchrun` has one process per device. Each works on its own part of the batch; the
gradients are averaged once, after the last micro-batch of a step and before clipping:

    with start() as world:
        broadcast(model, world)
        for step in range(total):
            for part in micro_batches:
                (loss_of(part) / len(micro_batches)).backward()
            average(model, world)
            norm = clip_gradients(model.parameters(), head.parameters(), 5.0, world)
            optimiser.step()

An explicit average instead of DistributedDataParallel: accumulation is exact without `no_sync` (one exchange
a step, of the sum), and the model that torch.compile sees is the plain one (DDP's buckets cut its graph). What
is given up is the overlap of exchange and backward pass: for 44 M parameters in float32 some milliseconds a
step between the GPUs of one machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.config import BadConfig

_CPU = torch.device("cpu")
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The place of this process: its rank in 0 … size − 1 and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def seed(self, *place: int) -> int:
        """A seed in 0 … 2⁶³ − 1 of this rank's own, from non-negative numbers (the run's seed, the step, …).

        Mixed, not added: neighbouring ranks, steps and runs share no stream. What has to be alike on
        every rank (a model's first weights) is seeded with the run's seed itself.
        """
        # the last 1 is an end mark: numpy takes (7,) and (7, 0) for one
        return int(np.random.SeedSequence((*place, self.rank, 1)).generate_state(1, np.uint64)[0] >> 1)

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, in place, summed over the ranks. No gradient."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """`tensor`, in place, the greatest over the ranks. No gradient."""
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """`tensor` (floating), in place, averaged over the ranks. No gradient."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def wait(self) -> None:
        """Return when every rank is here (the first has written what the others read, say)."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def _placed(environment: Mapping[str, str], device: str) -> World:
    if device not in ("auto", "cpu", "cuda"):
        raise BadConfig(f"device {device!r}: one of auto, cpu, cuda")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("device cuda: torch sees no GPU here; use cpu, or install a torch built for CUDA")
    given = [name for name in _NAMES if name in environment]
    if not {"RANK", "WORLD_SIZE"} & set(given):
        return World(device=torch.device(device))
    if len(given) < len(_NAMES):
        missing = ", ".join(name for name in _NAMES if name not in given)
        raise BadConfig(f"the environment names a rank but not {missing}: start with torchrun, or unset RANK")
    try:
        rank, size, local = (int(environment[name]) for name in _NAMES[:3])
    except ValueError as error:
        raise BadConfig(f"RANK, WORLD_SIZE and LOCAL_RANK have to be whole numbers: {error}") from error
    if not 0 <= rank < size:
        raise BadConfig(f"RANK {rank} does not lie in 0 … WORLD_SIZE − 1 = {size - 1}")
    if device == "cuda" and local >= torch.cuda.device_count():
        raise BadConfig(
            f"LOCAL_RANK {local}, but this machine has {torch.cuda.device_count()} GPU: "
            "start torchrun with as many processes as there are GPUs"
        )
    return World(rank, size, torch.device(device, local) if device == "cuda" else torch.device(device))


@contextmanager
def start(
    device: Literal["auto", "cpu", "cuda"] = "auto", timeout: timedelta = timedelta(minutes=30)
) -> Iterator[World]:
    """The world that torchrun's environment describes: gloo on CPUs, nccl on GPUs, nothing for one process.

    Nobody waits for ever: the others' next exchange fails as soon as a rank has died, and after `timeout`
    where it only fell silent. So `timeout` has to exceed what the first rank does alone (an evaluation).
    Raises BadConfig where the environment is incomplete or the device is not there.
    """
    world = _placed(os.environ, device)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield world
        return
    on_gpu = world.device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=timeout, device_id=world.device if on_gpu else None
    )
    try:
        yield world
    except BaseException:
        if not on_gpu:  # nccl's farewell waits for every rank: there the end of the process says it
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def split(count: int, world: World) -> range:
    """The contiguous part of 0 … count − 1 that is this rank's; the first count % size ranks hold one more."""
    least, more = divmod(count, world.size)
    first = world.rank * least + min(world.rank, more)
    return range(first, first + least + (world.rank < more))


def gather(tensor: Tensor, world: World) -> Tensor:
    """[n, …] of each rank, n alike on all → [size · n, …], by rank, with a gradient.

    The gradient is for a loss of which every rank differentiates its own part, L = Σ_r L_r (its range of the
    classes). With x_q what rank q gave, ∂L/∂x_q = Σ_r ∂L_r/∂x_q: a sum over the ranks. The model's gradient
    should then be Σ_q J_qᵀ ∂L/∂x_q, but `average` (like DDP) makes 1/size · Σ_q J_qᵀ g_q of what arrives
    at x_q; so g_q = size · ∂L/∂x_q. A loss that every rank computes whole is divided by `size` first.
    """
    return tensor if world.size == 1 else _Gather.apply(tensor, world)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        everyones = tensor.new_empty(world.size * len(tensor), *tensor.shape[1:])
        dist.all_gather(list(everyones.chunk(world.size)), tensor.contiguous())
        return everyones

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        world: World = ctx.world
        total = world.sum(gradient.clone(memory_format=torch.contiguous_format))
        return total.chunk(world.size)[world.rank] * world.size, None


def collect(shard: Tensor, count: int, world: World) -> Tensor | None:
    """The shards [len(split(count, ·)), …] of all ranks as one [count, …] on the first rank's CPU; else None."""
    if not world.first:
        dist.send(shard.detach().contiguous(), 0)
        return None
    whole = torch.empty(count, *shard.shape[1:], dtype=shard.dtype)
    for rank in range(world.size):
        place = split(count, replace(world, rank=rank))
        part = shard.detach()
        if rank:
            part = shard.new_empty(len(place), *shard.shape[1:])
            dist.recv(part, rank)
        whole[place.start : place.stop] = part.cpu()
    return whole


def broadcast(module: nn.Module, world: World) -> None:
    """Give every rank the first rank's parameters and buffers."""
    if world.size > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average(module: nn.Module, world: World) -> None:
    """Average the gradients and the running statistics of a replicated model over the ranks, in one exchange.

    A rank without a gradient counts as zeros. With the statistics alike everywhere, so is the whole model,
    and the first rank's checkpoint is that of all.
    """
    if world.size == 1:
        return
    tensors = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            tensors.append(parameter.grad)
    if not tensors:
        return
    flat = world.mean(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def clip_gradients(
    replicated: Iterable[Tensor], sharded: Iterable[Tensor], longest: float, world: World
) -> Tensor:
    """Shorten all gradients by one factor so that together they are no longer than `longest`.

    `replicated` are alike on every rank (a model after `average`), `sharded` are each rank's own rows (a
    partial head; sparse gradients too). Returns the length before, a scalar alike on every rank: not finite
    on one rank is not finite on all, so that all of them skip the step or none.
    """
    own, common = _gradients(sharded), _gradients(replicated)
    square = torch.zeros((), device=world.device)
    for gradient in own:
        square += torch.linalg.vector_norm(gradient).square()
    world.sum(square)
    for gradient in common:
        square += torch.linalg.vector_norm(gradient).square()
    length = square.sqrt()
    factor = (longest / (length + 1e-6)).clamp(max=1.0)
    for gradient in own + common:
        gradient.mul_(factor.to(gradient.dtype))
    return length


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The numbers of each gradient, each once: a sparse one may name a row twice until it is coalesced."""
    numbers = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            numbers.append(parameter.grad.values())
        else:
            numbers.append(parameter.grad)
    return numbers
