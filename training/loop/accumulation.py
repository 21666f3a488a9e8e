"""Gradient accumulation that is exact: many micro-batches leave the gradient of one batch of all their samples.

    window = Accumulation(config.batch, precision)
    for part in micro_batches(config.batch, config.micro_batch):
        with precision.autocast():
            embedding = model(pictures[part])
        window.add(loss_of(embedding, labels[part]), part.stop - part.start)
    window.close(optimiser)
    norm = clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    window.step(optimiser, norm=norm)

Exact means: equal to the gradient of the mean over all samples, for a loss that is a mean over samples. Batch
normalisation, and losses that compare the samples of a batch with each other (triplets, relations), see only their
micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.loop.precision import Precision


def micro_batches(samples: int, most: int) -> Iterator[slice]:
    """The slices of a batch of `samples`, each of at most `most`, as even as they can be."""
    parts = -(-samples // most)
    edges = [samples * part // parts for part in range(parts + 1)]
    return (slice(start, stop) for start, stop in pairwise(edges))


class Accumulation:
    """The window between two optimiser steps, which is full at `samples` samples.

    A last window that the data cannot fill is closed and stepped all the same: it counts by the samples it has.
    """

    def __init__(self, samples: int, precision: Precision) -> None:
        self.samples = samples
        self.precision = precision
        self.seen = 0

    def add(self, loss: Tensor, samples: int) -> bool:
        """Add the gradient of `loss`, a mean over `samples` samples. Returns whether the window is full."""
        # weighted by what a full window holds, so that a full one needs no second pass over the gradients
        self.precision.backward(loss * (samples / self.samples))
        self.seen += samples
        return self.seen >= self.samples

    @torch.no_grad()
    def close(self, *optimisers: Optimizer) -> None:
        """Make the gradients those of the mean over all samples seen, in true length; average over ranks before."""
        if not self.seen:
            raise ValueError("nothing was added to the window: there is no gradient to step with")
        self.precision.unscale(*optimisers)
        if self.seen == self.samples:
            return
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(self.samples / self.seen)

    def step(self, *optimisers: Optimizer, norm: float | Tensor = 0.0) -> bool:
        """Step, forget the gradients, open the next window. Returns whether a step was taken (see `Precision`)."""
        taken = self.precision.step(*optimisers, norm=norm)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.seen = 0
        return taken
