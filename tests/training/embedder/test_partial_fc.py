"""A part of the classes on each rank and a sample of them per step: the numbers are those of the whole head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.ranks import on_ranks
from training.config import BadConfig
from training.embedder.margins import MARGINS, ArcFace, BadLabels, Head, ScaledSoftmax, margin
from training.embedder.partial_fc import PartialFC, RowAdamW, RowSGD
from training.loop import checkpoint
from training.loop.distributed import ALONE, World, average, start

DIMENSION, IDENTITIES = 8, 21


def batch(faces: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, IDENTITIES, (faces,), generator=generator)
    return 3 * torch.randn(faces, DIMENSION, generator=generator, dtype=torch.float64), label


def partial(name: str = "arcface", rate: float = 1.0, world: World = ALONE, seed: int = 5) -> PartialFC:
    return PartialFC(margin(name), DIMENSION, IDENTITIES, rate, world, seed).double()


def dense(of: PartialFC, name: str = "arcface") -> Head:
    head = Head(margin(name), DIMENSION, IDENTITIES).double()
    head.weight.data.copy_(of.weight.data)
    return head


def loss_and_gradients(head: nn.Module, embedding: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    given = embedding.clone().requires_grad_()
    loss = head(given, *rest)
    loss.backward()
    weight = head.weight.grad
    return loss.detach(), given.grad, weight.to_dense() if weight.is_sparse else weight


@pytest.mark.parametrize("name", MARGINS)
def test_with_all_classes_it_is_the_cross_entropy_of_the_head(name: str) -> None:
    head = partial(name)
    expected = loss_and_gradients(dense(head, name), *batch())
    torch.testing.assert_close(loss_and_gradients(head, *batch()), expected, rtol=1e-10, atol=1e-12)


def test_in_float32_it_is_the_head_s_to_its_rounding() -> None:
    head = partial().float()
    embedding, label = batch()
    expected = loss_and_gradients(dense(head).float(), embedding.float(), label)
    found = loss_and_gradients(head, embedding.float(), label)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_the_gradient_is_that_of_finite_differences() -> None:
    head, (embedding, label) = partial(), batch(4)

    def loss(embedding: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"weight": weight}, (embedding, label))

    assert torch.autograd.gradcheck(loss, (embedding.requires_grad_(), head.weight.detach().requires_grad_()))


def test_the_gradient_is_dense_with_all_classes_and_sparse_with_a_sample() -> None:
    for rate in (1.0, 0.4):
        head = partial(rate=rate)
        for seed in range(2):  # twice: gradients add up
            head(*batch(seed=seed)).backward()
        assert head.weight.grad.is_sparse == (rate < 1)


def test_a_loss_beyond_69_is_what_it_is() -> None:
    head = PartialFC(ScaledSoftmax(scale=64.0), 2, 2)
    head.weight.data.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    embedding = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = head(embedding, torch.tensor([0]))
    assert loss.item() == pytest.approx(128.0)  # clamped at 1e-30 it would be 69.0776, without a gradient
    head.zero_grad()
    side = torch.tensor([[0.6, 0.8]], requires_grad=True)
    head(side, torch.tensor([0])).backward()
    assert side.grad.norm() > 10


def test_autocast_changes_nothing_forwards_or_backwards() -> None:
    embedding, label = batch()
    expected = loss_and_gradients(partial().float(), embedding.float(), label)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(partial().float(), embedding.float(), label)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_bf16_embedding_is_taken_in_float32() -> None:
    embedding = batch()[0].bfloat16().requires_grad_()
    loss = partial().float()(embedding, batch()[1])
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(embedding.grad).all()


def test_faces_that_do_not_count_are_as_if_they_were_not_there() -> None:
    (embedding, label), taken = batch(), torch.arange(12) % 3 > 0
    head = partial("adaface")
    loss, to_embedding, to_weight = loss_and_gradients(head, embedding, label, taken)
    expected = loss_and_gradients(dense(head, "adaface"), embedding[taken], label[taken])
    torch.testing.assert_close((loss, to_embedding[taken], to_weight), expected)
    assert not to_embedding[~taken].any()
    assert head(embedding, label, torch.zeros(12, dtype=torch.bool)).item() == 0


# sampling


def test_a_sample_has_every_positive_and_the_asked_share_of_the_classes() -> None:
    head = partial(rate=0.4)
    for draw in range(50):
        rows = head.sample(torch.tensor([3, 20, 3]), draw)
        assert {3, 20} <= set(rows.tolist())
        assert len(rows) == len(set(rows.tolist())) == int(0.4 * IDENTITIES)
        assert torch.equal(rows, rows.sort().values)


def test_more_positives_than_the_share_are_all_taken() -> None:
    assert partial(rate=0.1).sample(torch.arange(3, 18), 0).tolist() == list(range(3, 18))


def test_a_rate_that_leaves_nothing_still_takes_a_class() -> None:
    assert len(partial(rate=0.01).sample(torch.tensor([], dtype=torch.int64), 0)) == 1


def test_a_sample_is_the_seed_s_and_the_step_s_and_the_rank_s() -> None:
    nobody = torch.tensor([], dtype=torch.int64)
    head = partial(rate=0.4)
    assert torch.equal(head.sample(nobody, 3), partial(rate=0.4).sample(nobody, 3))
    others = [
        head.sample(nobody, 4),
        partial(rate=0.4, seed=6).sample(nobody, 3),
        PartialFC(ArcFace(), 8, 2 * IDENTITIES, 0.4, World(1, 2), 5).sample(nobody, 3),
    ]
    assert all(not torch.equal(head.sample(nobody, 3), other) for other in others)


def test_negatives_are_drawn_evenly() -> None:
    head = partial(rate=0.4)
    drawn = torch.cat([head.sample(torch.tensor([0]), draw) for draw in range(600)])
    counts = drawn.bincount(minlength=IDENTITIES)
    assert counts[0] == 600
    assert counts[1:].float().mean() == pytest.approx(600 * 7 / 20)
    assert counts[1:].min() > 150  # 210 expected, deviation 12


def test_a_step_draws_anew_and_evaluation_draws_nothing() -> None:
    head, (embedding, label) = partial(rate=0.6), batch()
    first, second = head(embedding, label), head(embedding, label)
    assert first != second
    assert head.draws == 2
    torch.testing.assert_close(head.eval()(embedding, label), dense(head)(embedding, label))
    assert head.draws == 2


def test_a_sampled_step_is_the_dense_one_over_the_sampled_classes() -> None:
    head, (embedding, label) = partial(rate=0.6), batch()
    rows = head.sample(label, 0)
    among = Head(ArcFace(), DIMENSION, len(rows)).double()
    among.weight.data.copy_(head.weight.data[rows])
    expected = loss_and_gradients(among, embedding, torch.searchsorted(rows, label))
    loss, to_embedding, to_weight = loss_and_gradients(head, embedding, label)
    torch.testing.assert_close((loss, to_embedding, to_weight[rows]), expected)
    assert sorted(set(head.weight.grad.coalesce().indices()[0].tolist())) == rows.tolist()


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: RowSGD(weights, lr=0.1, momentum=0.9, weight_decay=0.05),
    "adamw": lambda weights: RowAdamW(weights, lr=0.01, weight_decay=0.05),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_rows_that_were_not_drawn_do_not_move_nor_decay_nor_forget(name: str) -> None:
    head, (embedding, label) = partial(rate=0.5), batch(4)
    optimiser = OPTIMISERS[name]([head.weight])
    unmoved = 0
    for draw in range(6):
        rows = head.sample(label, draw)
        others = torch.ones(IDENTITIES, dtype=torch.bool)
        others[rows] = False
        before = head.logical_state(optimiser)
        optimiser.zero_grad()
        head(embedding, label).backward()
        optimiser.step()
        after = head.logical_state(optimiser)
        assert (before["weight"] != after["weight"])[rows].any(1).all()
        assert torch.equal(before["weight"][others], after["weight"][others])
        for moment in before["moments"]:
            assert torch.equal(before["moments"][moment][others], after["moments"][moment][others])
            unmoved += int(before["moments"][moment][others].any())
    assert unmoved  # among them were rows with a momentum that would have carried them on


@pytest.mark.parametrize("name", OPTIMISERS)
def test_two_passes_before_a_step_are_one_step_with_their_sum(name: str) -> None:
    """Both draw their own rows; a row that both drew moves once, by the sum."""
    head, first, second = partial(rate=0.5), batch(6, 1), batch(6, 2)
    twin = partial()
    optimiser, other = OPTIMISERS[name]([head.weight]), OPTIMISERS[name]([twin.weight])
    for given in (first, second):
        (head(*given) / 2).backward()
    gradient = head.weight.grad.to_dense()
    touched = head.weight.grad.coalesce().indices()[0]
    twin.weight.grad = gradient
    optimiser.step()
    other.step()
    torch.testing.assert_close(head.weight.data[touched], twin.weight.data[touched])


@pytest.mark.parametrize(
    ("rows", "torchs"),
    [
        (
            lambda w: RowSGD(w, lr=0.1, momentum=0.9, weight_decay=0.05),
            lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, weight_decay=0.05),
        ),
        (
            lambda w: RowAdamW(w, lr=0.1, weight_decay=0.05),
            lambda w: torch.optim.AdamW(w, 0.1, weight_decay=0.05),
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_on_a_dense_gradient_the_optimisers_are_torch_s(rows: Callable, torchs: Callable) -> None:
    ours, theirs = (nn.Parameter(torch.ones(3, 2, dtype=torch.float64)) for _ in range(2))
    optimisers = rows([ours]), torchs([theirs])
    for step in range(5):
        ours.grad = torch.randn(3, 2, generator=torch.Generator().manual_seed(step)).double()
        theirs.grad = ours.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        torch.testing.assert_close(ours, theirs)


def test_a_row_s_first_adam_step_is_as_long_late_as_early() -> None:
    weight = nn.Parameter(torch.zeros(2, 1))
    optimiser = RowAdamW([weight], lr=0.1)
    for row in [0] * 50 + [1]:
        optimiser.zero_grad()
        F.embedding(torch.tensor([row]), weight, sparse=True).sum().backward()
        optimiser.step()
    assert weight[1].item() == pytest.approx(-0.1, rel=1e-4)


# bad input


@pytest.mark.parametrize("wrong", [-1, IDENTITIES, 69_077])
def test_a_label_out_of_range_is_refused_by_its_range(wrong: int) -> None:
    with pytest.raises(BadLabels, match=rf"0 … {IDENTITIES - 1}.*number the identities anew"):
        partial()(torch.randn(2, DIMENSION).double(), torch.tensor([0, wrong]))


@pytest.mark.parametrize(
    "label", [torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 1).long()]
)
def test_labels_of_another_kind_are_refused(label: Tensor) -> None:
    with pytest.raises(BadLabels, match="int64, one for each of 2 embeddings"):
        partial()(torch.randn(2, DIMENSION).double(), label)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sample_rate": 0.0}, "sample_rate 0.0"),
        ({"sample_rate": 1.5}, "sample_rate 1.5"),
        ({"identities": 1}, "needs two identities"),
        ({"identities": 3, "world": World(0, 4)}, "3 identities on 4 processes"),
        ({"margin": ScaledSoftmax(label_smoothing=0.1)}, "label_smoothing"),
    ],
)
def test_an_impossible_head_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        PartialFC(**{"margin": ArcFace(), "dimension": 8, "identities": 5} | options)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weight": torch.zeros(20, DIMENSION)}, "20 identities × 8, this run has 21 × 8"),
        ({"weight": torch.zeros(IDENTITIES, 4)}, "21 identities × 4"),
        ({"margin": {"mean": torch.zeros(())}}, "mean"),
        ({"moments": None}, "moments"),
    ],
)
def test_a_state_of_another_head_is_refused(change: dict[str, Any], named: str) -> None:
    state = {key: value for key, value in (partial().logical_state() | change).items() if value is not None}
    head = partial()
    before = head.weight.detach().clone()
    with pytest.raises(checkpoint.UnreadableCheckpoint, match=named):
        head.load_logical_state(state)
    assert torch.equal(head.weight, before)


# the state, and several ranks


def steps(
    head: PartialFC, optimiser: torch.optim.Optimizer, model: nn.Module, count: int, world: World = ALONE
) -> list[float]:
    """Training steps of two micro-batches each; every rank has its part of the same faces."""
    backbone = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(count):
        optimiser.zero_grad()
        backbone.zero_grad()
        for micro in range(2):
            embedding, label = (of.chunk(world.size)[world.rank] for of in batch(12, 2 * step + micro))
            loss = head(model(embedding), label) / 2
            loss.backward()
            losses.append(loss.item())
        average(model, world)
        optimiser.step()
        backbone.step()
    return losses


def small_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(DIMENSION, DIMENSION).double()


def run(world: World, name: str, optimiser: str, rate: float = 1.0) -> dict[str, Any]:
    head, model = partial(name, rate, world), small_model()
    rows = OPTIMISERS[optimiser]([head.weight])
    losses = steps(head, rows, model, 3, world)
    return {"losses": losses, "model": model.state_dict(), "state": head.logical_state(rows)}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_head_taken_up_from_its_state_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    head, model = partial("adaface", 0.4), small_model()
    optimiser = OPTIMISERS[name]([head.weight])
    steps(head, optimiser, model, 2)
    checkpoint.save(tmp_path / "last.pt", head.logical_state(optimiser))
    again = partial("adaface", 0.4, seed=5)
    other = OPTIMISERS[name]([again.weight])
    again.load_logical_state(checkpoint.load(tmp_path / "last.pt"), other)
    twin = small_model()
    twin.load_state_dict(model.state_dict())
    assert steps(head, optimiser, model, 3) == steps(again, other, twin, 3)
    assert torch.equal(head.weight, again.weight)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_first_weights_do_not_depend_on_the_world(size: int) -> None:
    whole = PartialFC(ArcFace(), 4, 2500).weight
    parts = [PartialFC(ArcFace(), 4, 2500, world=World(rank, size)).weight for rank in range(size)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.std().item() == pytest.approx(0.01, rel=0.05)
    assert len(whole.unique()) > 0.9 * whole.numel()


def raised(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def on_two() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with start("cpu") as world:
        for name, optimiser in (("adaface", "sgd"), ("arcface", "adamw")):
            found[name] = run(world, name, optimiser)
        found["sampled"] = run(world, "arcface", "sgd", rate=0.5)
        head = partial(world=world)
        embedding, label = torch.ones(2, DIMENSION).double(), torch.tensor([0, 1])
        uneven = 2 - world.rank
        found["uneven"] = raised(lambda: head(embedding[:uneven], label[:uneven]))
        found["out of range"] = raised(lambda: head(embedding, label - world.rank))
        given = embedding.clone().requires_grad_()
        loss = head(given, label, torch.tensor([world.first, False]))  # one face of all four counts
        loss.backward()
        found["taken"] = {"loss": loss.item(), "gradient": given.grad, "rows": head.weight.grad.to_dense()}
        found["nobody"] = head(embedding, label, torch.tensor([False, False])).item()
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(on_two, 2, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize(("name", "optimiser"), [("adaface", "sgd"), ("arcface", "adamw")])
def test_two_processes_do_what_one_does(two: list[dict[str, Any]], name: str, optimiser: str) -> None:
    expected = run(ALONE, name, optimiser)
    for found in two:
        assert found[name]["losses"] == pytest.approx(expected["losses"], rel=1e-10)
        torch.testing.assert_close(found[name]["model"], expected["model"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(two[0][name]["state"], expected["state"], rtol=1e-10, atol=1e-12)
    assert two[1][name]["state"] == {}


def test_two_processes_that_sample_have_one_loss_and_one_model(two: list[dict[str, Any]]) -> None:
    first, second = (found["sampled"] for found in two)
    assert first["losses"] == second["losses"]
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])
    moved = (first["state"]["weight"] != partial().weight).any(1)
    drawn = {
        row + (0, 11)[rank]
        for rank in range(2)
        for draw in range(6)
        for row in partial(rate=0.5, world=World(rank, 2))
        .sample(rows_of(batch(12, draw)[1], World(rank, 2)), draw)
        .tolist()
    }
    assert set(moved.nonzero()[:, 0].tolist()) == drawn


def rows_of(label: Tensor, world: World) -> Tensor:
    classes = partial(world=world).classes
    return label[(label >= classes.start) & (label < classes.stop)] - classes.start


def test_labels_of_another_rank_s_classes_only_push_away(two: list[dict[str, Any]]) -> None:
    """One face of class 0 counts: the second rank's rows (11 …) have the gradient of others, none of a target."""
    head = dense(partial())
    loss, to_embedding, to_weight = loss_and_gradients(
        head, torch.ones(1, DIMENSION).double(), torch.tensor([0])
    )
    first, second = (found["taken"] for found in two)
    assert first["loss"] == second["loss"] == pytest.approx(loss.item())
    torch.testing.assert_close(torch.cat([first["rows"], second["rows"]]), to_weight)
    torch.testing.assert_close(first["gradient"][:1] / 2, to_embedding)  # what is averaged over two ranks
    assert not second["gradient"].any()


def test_no_face_at_all_costs_nothing(two: list[dict[str, Any]]) -> None:
    assert [found["nobody"] for found in two] == [0, 0]


def test_uneven_batches_are_refused_on_both_ranks(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "ValueError: the ranks brought [2, 1] faces" in found["uneven"]


def test_a_wrong_label_of_one_rank_is_refused_on_both(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "BadLabels" in found["out of range"]
        assert "-1" in found["out of range"]


def state_of_four() -> dict[str, Any]:
    with start("cpu") as world:
        return run(world, "adaface", "sgd")["state"]


STATE = "four.pt"


def resharded() -> dict[str, Any]:
    """The loss of the next step, and the state once more, of a head that four ranks have trained."""
    state = torch.load(Path.cwd() / STATE)
    with start("cpu") as world:
        return taken_up(state, world)


def taken_up(state: dict[str, Any], world: World) -> dict[str, Any]:
    head = partial("adaface", world=world, seed=99)
    optimiser = OPTIMISERS["sgd"]([head.weight])
    head.load_logical_state(state, optimiser)
    again = head.logical_state(optimiser)
    return {"state": again, "losses": steps(head, optimiser, small_model(), 1, world)}


@pytest.mark.slow
def test_a_state_of_four_shards_loads_on_one_two_and_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = on_ranks(state_of_four, 4, tmp_path)[0]
    torch.save(state, tmp_path / STATE)
    expected = taken_up(state, ALONE)
    torch.testing.assert_close(expected["state"], state, rtol=0, atol=0)
    monkeypatch.chdir(tmp_path)
    for size in (2, 3):
        for rank, found in enumerate(on_ranks(resharded, size, tmp_path)):
            assert found["losses"] == pytest.approx(expected["losses"], rel=1e-10)
            torch.testing.assert_close(found["state"], state if rank == 0 else {}, rtol=0, atol=0)


@pytest.mark.needs_gpu
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_a_gpu_computes_what_a_cpu_does(rate: float) -> None:
    embedding, label = batch()
    device = torch.device("cuda")
    head = partial("adaface", rate, World(device=device))
    state = head.logical_state()
    on_cpu = partial("adaface", rate)
    on_cpu.load_logical_state(state)
    if rate < 1:  # generators differ by device: the drawn rows are given
        rows = head.sample(label.to(device), 0)
        on_cpu.sample = lambda *_: rows.cpu()  # type: ignore[method-assign]
    found = loss_and_gradients(head, embedding.to(device), label)
    torch.testing.assert_close([of.cpu() for of in found], list(loss_and_gradients(on_cpu, embedding, label)))
