"""The batching policy, tested with a list and a clock that is a number."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.inference.batcher import Batcher, Formed


@dataclass(eq=False)
class Item:
    name: int
    shape: int = 0
    deadline: float = 100.0
    abandoned: bool = False


def names(formed: Formed[Item]) -> tuple[list[int], list[int], list[int]]:
    return (
        [of.name for of in formed.batch],
        [of.name for of in formed.expired],
        [of.name for of in formed.abandoned],
    )


def test_a_batch_takes_what_waits_in_order_and_no_more_than_it_may() -> None:
    batcher: Batcher[Item] = Batcher(limit=10, max_batch=3)
    assert all(batcher.offer(Item(name)) for name in range(5))
    assert names(batcher.form(0)) == ([0, 1, 2], [], [])
    assert names(batcher.form(0)) == ([3, 4], [], [])
    assert names(batcher.form(0)) == ([], [], [])


def test_shapes_never_mix_and_the_one_that_waits_longest_goes_first() -> None:
    batcher: Batcher[Item] = Batcher(limit=10, max_batch=8)
    for name, shape in enumerate([1, 2, 1, 2, 2]):
        batcher.offer(Item(name, shape))
    assert names(batcher.form(0))[0] == [0, 2]
    assert names(batcher.form(0))[0] == [1, 3, 4]


def test_the_queue_never_grows_beyond_its_limit() -> None:
    batcher: Batcher[Item] = Batcher(limit=2, max_batch=1)
    assert [batcher.offer(Item(name)) for name in range(4)] == [True, True, False, False]
    assert len(batcher) == 2
    batcher.form(0)
    assert batcher.offer(Item(5))


def test_work_whose_deadline_passed_is_dropped_when_the_batch_is_formed() -> None:
    batcher: Batcher[Item] = Batcher(limit=10, max_batch=2)
    for name, deadline in enumerate([5.0, 20.0, 9.0, 10.0, 30.0]):
        batcher.offer(Item(name, deadline=deadline))
    assert names(batcher.form(now=10.0)) == ([1, 4], [0, 2, 3], [])


def test_work_whose_caller_left_is_dropped_when_the_batch_is_formed() -> None:
    batcher: Batcher[Item] = Batcher(limit=10, max_batch=4)
    items = [Item(name) for name in range(4)]
    for item in items:
        batcher.offer(item)
    items[0].abandoned = items[2].abandoned = True
    assert names(batcher.form(0)) == ([1, 3], [], [0, 2])


def test_those_who_left_do_not_keep_others_out() -> None:
    batcher: Batcher[Item] = Batcher(limit=3, max_batch=4)
    items = [Item(name, shape=name % 2) for name in range(3)]
    for item in items:
        batcher.offer(item)
    assert not batcher.offer(Item(3))
    for item in items[:2]:
        item.abandoned = True
    assert batcher.offer(Item(4))
    assert (len(batcher), batcher.forgotten) == (2, 2)


def test_clear_hands_everything_out_once() -> None:
    batcher: Batcher[Item] = Batcher(limit=10, max_batch=4)
    for name in range(3):
        batcher.offer(Item(name, shape=name))
    assert [item.name for item in batcher.clear()] == [0, 1, 2]
    assert len(batcher) == 0
    assert names(batcher.form(0)) == ([], [], [])


@pytest.mark.parametrize(("limit", "max_batch"), [(0, 1), (1, 0)])
def test_a_queue_for_nothing_is_refused(limit: int, max_batch: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Batcher(limit, max_batch)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("leave"), st.integers(0, 200), st.just(0)),
        st.tuples(st.just("form"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(steps=STEPS, limit=st.integers(1, 6), max_batch=st.integers(1, 4))
def test_every_item_leaves_once_alive_in_order_and_only_in_a_batch_of_its_shape(
    steps: list[tuple[str, int, int]], limit: int, max_batch: int
) -> None:
    batcher: Batcher[Item] = Batcher(limit, max_batch)
    accepted: list[Item] = []
    gone: list[Item] = []
    for now, (step, number, lifetime) in enumerate(steps):
        if step == "offer":
            item = Item(now, shape=number, deadline=float(now + lifetime))
            if batcher.offer(item):
                accepted.append(item)
        elif step == "leave" and accepted:
            accepted[number % len(accepted)].abandoned = True
        elif step == "form":
            formed = batcher.form(float(now))
            assert len(formed.batch) <= max_batch
            assert len({item.shape for item in formed.batch}) <= 1
            assert not any(item.abandoned or item.deadline <= now for item in formed.batch)
            assert [item.name for item in formed.batch] == sorted(item.name for item in formed.batch)
            gone += formed.batch + formed.expired + formed.abandoned
        assert len(batcher) <= limit
    gone += batcher.clear()
    assert len(gone) == len({id(item) for item in gone})
    assert {id(item) for item in gone} <= {id(item) for item in accepted}
    assert len(gone) + batcher.forgotten == len(accepted)
