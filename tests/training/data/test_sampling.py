"""Samplers hand out every epoch's faces in full batches, and depend on seed, step, rank and world alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.identities import BadData
from training.data.sampling import PK, Balanced, Members, Sampler, Shuffled

LABEL = np.random.default_rng(1).permutation(
    np.repeat(np.arange(9), [1, 1, 2, 3, 4, 8, 16, 32, 60])
)  # 127 faces


def samplers(seed: int = 3, rank: int = 0, world: int = 1) -> list[Sampler]:
    return [
        Shuffled(len(LABEL), 8, seed, rank, world),
        Balanced(LABEL, 8, seed, rank, world),
        PK(LABEL, 2, 4, seed, rank, world),
    ]


def epoch(sampler: Sampler, number: int = 0) -> np.ndarray:
    """[steps, b]"""
    steps = range(number * sampler.batches_per_epoch, (number + 1) * sampler.batches_per_epoch)
    return np.stack([sampler.batch(step) for step in steps])


@pytest.mark.parametrize("kind", range(3))
def test_a_step_is_the_same_whatever_was_asked_before(kind: int) -> None:
    forward = [samplers()[kind].batch(step) for step in range(40)]
    other = samplers()[kind]
    for step in np.random.default_rng(0).permutation(40):
        assert np.array_equal(other.batch(int(step)), forward[step])
    assert not np.array_equal(samplers(seed=4)[kind].batch(5), forward[5])


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("kind", range(3))
def test_every_batch_of_every_rank_is_full(kind: int, world: int) -> None:
    for rank in range(world):
        sampler = samplers(rank=rank, world=world)[kind]
        for step in range(3 * sampler.batches_per_epoch):
            batch = sampler.batch(step)
            assert (batch.shape, batch.dtype) == ((8,), np.int64)
            assert ((batch >= 0) & (batch < len(LABEL))).all()


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_over_all_ranks_repeats_no_face(steps: int, batch: int, world: int, number: int) -> None:
    faces = steps * batch * world + (7 * steps) % (batch * world)
    ranks = [Shuffled(faces, batch, 5, rank, world) for rank in range(world)]
    assert {of.batches_per_epoch for of in ranks} == {steps}
    seen = np.concatenate([epoch(of, number).ravel() for of in ranks])
    assert len(np.unique(seen)) == len(seen) == steps * batch * world


def test_other_faces_are_left_out_in_other_epochs() -> None:
    sampler = Shuffled(10, 4, 0)
    left = [set(range(10)) - set(epoch(sampler, number).ravel().tolist()) for number in range(20)]
    assert all(len(of) == 2 for of in left)
    assert set().union(*left) == set(range(10))


def test_one_rank_takes_the_order_that_a_run_in_one_process_has_always_taken() -> None:
    order = np.random.default_rng((7, 2)).permutation(100)
    assert np.array_equal(Shuffled(100, 30, 7).batch(7), order[30:60])


def test_fewer_faces_than_a_step_takes_are_refused_with_the_way_out() -> None:
    with pytest.raises(BadData, match="7 faces are fewer than one batch of 8: lower `batch`"):
        Shuffled(7, 8, 0)
    with pytest.raises(
        BadData, match="15 faces are fewer than one batch of 8 on each of 2 ranks: lower `batch`"
    ):
        Shuffled(15, 8, 0, world=2)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_balanced_epoch_gives_every_person_their_share_within_one_draw(balance: float) -> None:
    size = np.bincount(LABEL)
    share = size ** (1 - balance) / (size ** (1 - balance)).sum()
    sampler = Balanced(LABEL, 1, 2, balance=balance)
    assert sampler.batches_per_epoch == len(LABEL)
    for number in range(5):
        drawn = epoch(sampler, number).ravel()
        people = np.bincount(LABEL[drawn], minlength=9)
        assert np.abs(people - share * len(LABEL)).max() < 1 + 1e-9
        pictures = np.bincount(drawn, minlength=len(LABEL))
        assert np.abs(pictures - share[LABEL] / size[LABEL] * len(LABEL)).max() < 1 + 1e-9


def test_no_balance_is_every_face_once() -> None:
    assert sorted(epoch(Balanced(LABEL, 1, 2, balance=0.0)).ravel().tolist()) == list(range(127))


def test_a_balanced_person_s_pictures_take_turns() -> None:
    sampler = Balanced(LABEL, 1, 2)
    seen = np.concatenate([epoch(sampler, number).ravel() for number in range(30)])
    assert len(np.unique(seen[LABEL[seen] == 8])) == 60


def test_balanced_ranks_share_one_epoch() -> None:
    together = np.sort(np.concatenate([epoch(Balanced(LABEL, 4, 2, rank, 3)).ravel() for rank in range(3)]))
    alone = np.sort(epoch(Balanced(LABEL, 12, 2)).ravel())
    assert np.array_equal(together, alone)


def test_a_pk_batch_is_people_by_pictures() -> None:
    for number in range(4):
        for batch in epoch(PK(LABEL, 3, 4, 1), number):
            people = LABEL[batch].reshape(3, 4)
            assert (people == people[:, :1]).all()
            assert len(set(people[:, 0].tolist())) == 3


def test_pictures_repeat_only_where_there_are_fewer() -> None:
    for batch in epoch(PK(LABEL, 1, 4, 1)):
        own = (LABEL[batch[0]] == LABEL).sum()
        times = np.bincount(batch, minlength=len(LABEL))
        assert (times > 0).sum() == min(own, 4)
        assert times.max() == -(-4 // own)


def test_an_epoch_visits_each_person_with_two_pictures_once() -> None:
    sampler = PK(LABEL, 1, 2, 6)
    assert (sampler.singletons, sampler.batches_per_epoch) == (2, 7)
    for number in range(3):
        assert sorted(LABEL[epoch(sampler, number)[:, 0]].tolist()) == list(range(2, 9))


def test_ranks_take_different_people() -> None:
    for step in range(6):
        people = [set(LABEL[PK(LABEL, 2, 2, 6, rank, 3).batch(step)].tolist()) for rank in range(3)]
        assert len(set().union(*people)) == 6


def test_too_few_people_with_two_pictures_are_refused() -> None:
    with pytest.raises(
        BadData, match=r"7 people have two or more pictures \(2 have one\); a step takes 8: lower `people`"
    ):
        PK(LABEL, 4, 2, 0, world=2)


def test_members_are_looked_up_in_a_table() -> None:
    members = Members(LABEL)
    for person in range(9):
        assert members[person].tolist() == np.flatnonzero(person == LABEL).tolist()
        assert members[person].base is members[8].base
    assert members.counts.tolist() == [1, 1, 2, 3, 4, 8, 16, 32, 60]


def test_a_person_without_pictures_has_no_members() -> None:
    assert Members(np.array([0, 2, 2]))[1].tolist() == []
