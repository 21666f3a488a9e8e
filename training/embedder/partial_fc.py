"""Margin softmax over very many identities: a part of the classes per process, a sample of them per step.

Partial FC (An et al. 2021, arXiv 2010.05222; 2022, arXiv 2203.15565). The class centres lie in contiguous
ranges on the ranks; every rank sees the embeddings of all and its own columns of the logits, and the softmax's
maximum, denominator and target are exchanged, so that the loss is that of the whole. With a sample rate below 1 a
step takes the classes of its own faces and random others; the rest neither cost time nor move.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import BadConfig
from training.embedder.margins import BadLabels, Margin, check_labels
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.distributed import ALONE, World, collect, gather, split

_BLOCK = 1024  # classes whose first weights come from one seed


class PartialFC(nn.Module):
    """A margin head whose `weight` [len(classes), dimension] is this rank's part of all class centres.

    margin: what the cosine to the true identity becomes. sample_rate: the share of a rank's classes in a training
    step, in (0, 1]; the classes of the step's own faces always take part, even if they are more. In eval mode
    all classes do. Raises BadConfig for an impossible value.

    With a rate below 1 the weight's gradient is sparse and names the sampled rows alone; several backward
    passes add up, whatever rows each of them drew. `RowSGD` and `RowAdamW` take it (and a dense one).
    """

    def __init__(
        self,
        margin: Margin,
        dimension: int,
        identities: int,
        sample_rate: float = 1.0,
        world: World = ALONE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise BadConfig(f"sample_rate {sample_rate}: a share of the classes, above 0 and at most 1")
        if identities < max(2, world.size):
            raise BadConfig(
                f"{identities} identities on {world.size} processes: a classifier needs two identities, "
                "and each process at least one of its own"
            )
        if margin.label_smoothing:
            raise BadConfig(
                "label_smoothing spreads over all classes, a sample has no such thing: set it to 0"
            )
        self.margin, self.identities, self.sample_rate = margin.to(world.device), identities, sample_rate
        self.world, self.seed = world, seed
        self.classes = split(identities, world)
        self.draws = 0
        self.weight = nn.Parameter(_first_weights(self.classes, dimension, seed).to(world.device))

    def forward(self, embedding: Tensor, label: Tensor, taken: Tensor | None = None) -> Tensor:
        """The mean loss over the faces of all ranks: a scalar in float32 or wider, alike on every rank; 0 of none.

        embedding: [n, dimension], any length; label: int64 [n], best still on the CPU, where its check waits for
        no device; taken: bool [n], the faces that count (None: all). n has to be alike on all ranks.
        The gradient is such that `average` over the ranks makes it the model's; the weight's needs no exchange.
        Raises BadLabels, and ValueError for uneven batches, on every rank whichever brought them.
        """
        self._check(embedding, label)
        device = self.weight.device
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        embedding = gather(embedding, self.world)
        label = gather(label.to(device, non_blocking=True), self.world)
        if taken is not None:
            taken = gather(taken.to(device), self.world)
            embedding, label = embedding[taken], label[taken]
        with torch.autocast(device.type, enabled=False):  # 1 − 1e-6 is 1.0 in bf16
            return self._losses(embedding, label).sum() / max(1, len(label))

    def _check(self, embedding: Tensor, label: Tensor) -> None:
        if label.dtype != torch.int64 or label.shape != embedding.shape[:1]:
            raise BadLabels(
                f"labels must be int64, one for each of {len(embedding)} embeddings, "
                f"got {label.dtype} {list(label.shape)}"
            )
        mine = [len(label), int(label.min()), int(label.max())] if len(label) else [0, 0, 0]
        facts = torch.tensor([mine])
        if self.world.size > 1:
            facts = gather(facts.to(self.weight.device), self.world).cpu()
        counts = facts[:, 0].tolist()
        if min(counts) < max(counts):
            raise ValueError(
                f"the ranks brought {counts} faces: give each as many, and drop the last, smaller batch"
            )
        check_labels(facts[:, 1:].flatten(), self.identities)

    def _losses(self, embedding: Tensor, label: Tensor) -> Tensor:
        """[n, d], int64 [n] → [n]: each face's loss, of which this rank differentiates what its classes add."""
        here = (label >= self.classes.start) & (label < self.classes.stop)
        face = here.nonzero()[:, 0]
        row = label[face] - self.classes.start
        if self.training and self.sample_rate < 1:
            sampled = self.sample(row, self.draws)
            self.draws += 1
            weight, column = F.embedding(sampled, self.weight, sparse=True), torch.searchsorted(sampled, row)
        else:
            weight, column = self.weight, row
        unit, scale = F.normalize(embedding), self.margin.scale
        own = (unit[face] * F.normalize(F.embedding(row, self.weight, sparse=True))).sum(1)
        cosine = _Total.apply(own.new_zeros(len(label)).index_put((face,), own), self.world)
        target = scale * self.margin.penalise(cosine, embedding.detach().norm(dim=1))
        return _CrossEntropy.apply(unit, weight, target, face, column, scale, self.world)

    def sample(self, positive: Tensor, draw: int) -> Tensor:
        """The rows of step `draw`, sorted int64: all of `positive` and random others, int(rate · rows) together.

        A function of the seed, the rank, the draw and the positives alone. More positives than that: all of them.
        """
        generator = torch.Generator(self.weight.device).manual_seed(self.world.seed(self.seed, draw))
        order = torch.rand(len(self.weight), generator=generator, device=self.weight.device)
        order[positive] = 2
        count = max(1, int(self.sample_rate * len(self.weight)), int((order > 1).sum()))
        return order.topk(count).indices.sort().values

    def logical_state(self, optimiser: torch.optim.Optimizer | None = None) -> dict[str, Any]:
        """What a checkpoint holds of the head, whatever the world's size; {} on all ranks but the first.

        weight: [identities, dimension]; moments: what the optimiser remembers of each row, [identities, …], and
        its plain numbers; draws, margin. On the CPU. Every rank has to call it.
        """
        moments = optimiser.state.get(self.weight, {}) if optimiser else {}
        weight = self._whole(self.weight)
        whole = {name: self._whole(moment) for name, moment in moments.items()}
        if not self.world.first:
            return {}
        margin = {name: buffer.to("cpu", copy=True) for name, buffer in self.margin.state_dict().items()}
        return {"weight": weight, "moments": whole, "draws": self.draws, "margin": margin}

    def load_logical_state(
        self, state: dict[str, Any], optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Take this rank's rows of what `logical_state` gave, in a world of any size. Raises UnreadableCheckpoint."""
        try:
            weight, moments, draws, margin = (state[key] for key in ("weight", "moments", "draws", "margin"))
            self.margin.load_state_dict(margin)
        except (KeyError, TypeError, RuntimeError) as error:
            raise UnreadableCheckpoint(f"no state of this head: {error}; use another --run") from error
        expected = (self.identities, self.weight.shape[1])
        if tuple(weight.shape) != expected:
            raise UnreadableCheckpoint(
                f"the head is of {weight.shape[0]} identities × {weight.shape[1]}, "
                f"this run has {expected[0]} × {expected[1]}; use another --run"
            )
        self.weight.data.copy_(self._part(weight))
        self.draws = int(draws)
        if optimiser:
            optimiser.state[self.weight] = {name: self._part(moment) for name, moment in moments.items()}

    def _whole(self, shard: Any) -> Any:
        """[len(classes), …] → [identities, …] on the first rank; anything without rows as it is."""
        if isinstance(shard, Tensor) and shard.ndim:
            return collect(shard, self.identities, self.world)
        return deepcopy(shard)

    def _part(self, whole: Any) -> Any:
        if isinstance(whole, Tensor) and whole.ndim:
            return whole[self.classes.start : self.classes.stop].to(self.weight.device, copy=True)
        return deepcopy(whole)


def _first_weights(classes: range, dimension: int, seed: int) -> Tensor:
    """N(0, 0.01) [len(classes), dimension]: a class has the same row in a world of any size."""
    rows = []
    for block in range(classes.start // _BLOCK, -(-classes.stop // _BLOCK)):
        drawn = torch.randn(
            _BLOCK, dimension, generator=torch.Generator().manual_seed(ALONE.seed(seed, block))
        )
        rows.append(drawn[max(0, classes.start - block * _BLOCK) : classes.stop - block * _BLOCK])
    return torch.cat(rows) * 0.01


class _Total(torch.autograd.Function):
    """[n] summed over the ranks. Every rank goes on with the same numbers and so has the same gradient, which
    is each summand's own: the way back is the identity."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, world: World) -> Tensor:
        return world.sum(own.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _CrossEntropy(torch.autograd.Function):
    """log Σ_j exp(z_j) − z_target per face, the columns j spread over the ranks.

    unit [n, d] and the unit rows of weight [k, d] give this rank's logits; `target` [n] stands for the logit of the
    true class, which is column `column` of face `face` where this rank has it. By hand for the memory: of
    [n, k] one array lives, the powers exp(z_j − max), and of [k, d] the unit rows and the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        unit: Tensor,
        weight: Tensor,
        target: Tensor,
        face: Tensor,
        column: Tensor,
        scale: float,
        world: World,
    ) -> Tensor:
        length = torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_min(1e-12)
        centre = weight / length
        power = (unit @ centre.T).mul_(scale)
        power[face, column] = -torch.inf  # the target is not among the others
        most = torch.maximum(world.maximum(power.amax(1)), target)
        others = world.sum(power.sub_(most[:, None]).exp_().sum(1))
        total = others + (target - most).exp()
        ctx.save_for_backward(unit, centre, length, power, others, total)
        ctx.scale = scale
        return total.log() + (most - target)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        unit, centre, length, power, others, total = ctx.saved_tensors
        per_face = (ctx.scale * gradient / total)[:, None]
        with torch.autocast(unit.device.type, enabled=False):
            to_unit = (power @ centre) * per_face
            to_weight = power.T @ (unit * per_face)  # to the unit rows; less what would only lengthen them:
            along = torch.einsum("kd,kd->k", to_weight, centre)[:, None]
            to_weight.addcmul_(centre, along, value=-1).div_(length)
        return to_unit, to_weight, -gradient * others / total, None, None, None, None


class RowSGD(torch.optim.Optimizer):
    """torch.optim.SGD (momentum, L2 decay) that moves, decays and remembers only the rows that have a gradient.

    A dense gradient has all rows; a sparse one names them. `state[weight]["momentum"]` is [rows, d].
    """

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, weight, rows, gradient in _touched(self):
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            value = weight[rows]
            moved = state["momentum"][rows].mul_(group["momentum"])
            moved.add_(gradient).add_(value, alpha=group["weight_decay"])
            state["momentum"][rows] = moved
            weight[rows] = value.sub_(moved, alpha=group["lr"])


class RowAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW that moves, decays and remembers only the rows that have a gradient.

    Each row counts its own steps: with the run's count the first update of a row that is drawn late would
    be three times too long. `state[weight]`: `mean`, `square` [rows, d], `steps` [rows].
    """

    def __init__(
        self,
        parameters: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, weight, rows, gradient in _touched(self):
            state = self.state[weight]
            if not state:
                state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["steps"] = weight.new_zeros(len(weight))
            fast, slow = group["betas"]
            steps = state["steps"][rows].add_(1)
            mean = state["mean"][rows].lerp_(gradient, 1 - fast)
            square = state["square"][rows].mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
            state["steps"][rows], state["mean"][rows], state["square"][rows] = steps, mean, square
            value = weight[rows].mul_(1 - group["lr"] * group["weight_decay"])
            length = (square / (1 - slow**steps)[:, None]).sqrt_().add_(group["eps"])
            weight[rows] = value.sub_((mean / (1 - fast**steps)[:, None]).div_(length), alpha=group["lr"])


def _touched(optimiser: torch.optim.Optimizer) -> Any:
    """(group, weight, rows, gradient [rows, d]) of every parameter with a gradient; rows: an index or all."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if weight.grad.is_sparse:
                gradient = weight.grad.coalesce()  # a row that two backward passes drew is one row
                yield group, weight, gradient.indices()[0], gradient.values()
            else:
                yield group, weight, slice(None), weight.grad
