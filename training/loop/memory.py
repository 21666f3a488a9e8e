"""How much memory a run will need, before its first step fails for want of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

LIVE_LOGITS = 3  # the logits, their softmax and its gradient, in float32


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they are for. An estimate from below: allocators and kernels' workspaces come on top."""

    model: int  # weights, gradients, optimiser's states, the slow average
    activations: int  # what the backward pass will read
    head: int  # class centres, gradients, states
    logits: int

    @property
    def total(self) -> int:
        return self.model + self.activations + self.head + self.logits

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {value / 1e9:.2f}"
            for name, value in (
                ("model", self.model),
                ("activations", self.activations),
                ("head", self.head),
                ("logits", self.logits),
            )
        )
        return f"{self.total / 1e9:.2f} GB ({parts})"

    def advice(self, free: int) -> str | None:
        """What to do where `free` bytes are too few; None where they suffice."""
        if self.total <= free:
            return None
        largest = max(("activations", "head", "logits", "model"), key=lambda part: getattr(self, part))
        remedy = {
            "activations": "use micro_batch (gradient accumulation), or bf16",
            "head": "spread the class centres over more processes: Partial FC shards them",
            "logits": "sample the classes: Partial FC with sample_rate 0.1 keeps a tenth of the logits",
            "model": "choose a smaller backbone",
        }[largest]
        return f"the run needs about {self}, {free / 1e9:.2f} GB are free: {remedy}"


@torch.no_grad()
def training_memory(
    model: nn.Module,
    picture: Tensor,
    batch: int,
    *,
    identities: int,
    dimension: int,
    states: int,
    sample_rate: float = 1.0,
    shards: int = 1,
    activation_bytes: int = 4,
) -> Memory:
    """The estimate for one process. `picture` [1, …] goes through the model once, in eval mode.

    `batch` is what is held at once (a micro-batch). `states` is the optimiser's per weight: 1 for SGD with momentum, 2
    for Adam; `shards` the processes that share the head; `activation_bytes` 2 in half precision.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    rows = -(-identities // shards)
    return Memory(
        model=4 * weights * (3 + states),
        activations=batch * activation_bytes * _outputs(model, picture),
        head=4 * rows * dimension * (2 + states),
        logits=int(4 * LIVE_LOGITS * batch * shards * rows * sample_rate),
    )


def _outputs(model: nn.Module, picture: Tensor) -> int:
    """The numbers that all leaves together put out for one picture."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            counts.append(output.numel())

    leaves = [layer for layer in model.modules() if not next(layer.children(), None)]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    training = model.training
    try:
        model.eval()(picture)
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return sum(counts)


def free_memory(device: torch.device | str) -> int | None:
    """Bytes free on a GPU, or in the machine's memory for a CPU; None where the system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    information = Path("/proc/meminfo")
    for line in information.read_text().splitlines() if information.is_file() else []:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
