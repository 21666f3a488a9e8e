"""Which items run next and which are dropped: policy only, no threads, no clock of its own.

Kept: an item is handed out once, as part of a batch or as dropped; nothing abandoned or late is ever in a batch; the
number of waiting items never exceeds the limit. Whoever shares a batcher between threads holds a lock around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the policy must know of an item."""

    @property
    def shape(self) -> Hashable:
        """Items of one shape may share a batch."""
        ...

    @property
    def deadline(self) -> float:
        """The moment, on the caller's clock, from which nobody wants the answer."""
        ...

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...


Item = TypeVar("Item", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Formed(Generic[Item]):
    """What left the queue: a batch of one shape in order of arrival, and what was dropped while it was formed."""

    batch: list[Item]
    expired: list[Item]
    abandoned: list[Item]


class Batcher(Generic[Item]):
    """A bounded queue that hands out batches. No item waits for company: a free lane takes what is there.

    limit       items that may wait; one more is refused
    max_batch   items in a batch at most
    """

    def __init__(self, limit: int, max_batch: int) -> None:
        if limit < 1 or max_batch < 1:
            raise ValueError("limit and max_batch must be positive")
        self.limit = limit
        self.max_batch = max_batch
        self._groups: dict[Hashable, deque[tuple[int, Item]]] = {}
        self._arrivals = 0
        self._waiting = 0
        self.forgotten = 0  # abandoned items that `offer` threw out to make room, ever

    def __len__(self) -> int:
        return self._waiting

    def offer(self, item: Item) -> bool:
        """Queue `item`; False when the queue is full. Those who left make room first."""
        if self._waiting >= self.limit:
            self._forget_abandoned()
        if self._waiting >= self.limit:
            return False
        self._groups.setdefault(item.shape, deque()).append((self._arrivals, item))
        self._arrivals += 1
        self._waiting += 1
        return True

    def form(self, now: float) -> Formed[Item]:
        """The next batch: the shape whose first live item waits longest, with others of that shape behind it.

        The batch is empty only when no live item waits.
        """
        formed: Formed[Item] = Formed([], [], [])
        for shape in list(self._groups):
            self._drop_dead_heads(shape, now, formed)
        if self._groups:
            oldest = min(self._groups, key=lambda shape: self._groups[shape][0][0])
            self._fill(oldest, now, formed)
        return formed

    def clear(self) -> list[Item]:
        """Everything that waits, taken out."""
        items = [item for group in self._groups.values() for _, item in group]
        self._groups.clear()
        self._waiting = 0
        return items

    def _fill(self, shape: Hashable, now: float, formed: Formed[Item]) -> None:
        while shape in self._groups and len(formed.batch) < self.max_batch:
            formed.batch.append(self._take(shape))
            self._drop_dead_heads(shape, now, formed)

    def _drop_dead_heads(self, shape: Hashable, now: float, formed: Formed[Item]) -> None:
        while shape in self._groups:
            head = self._groups[shape][0][1]
            if head.deadline <= now:
                formed.expired.append(self._take(shape))
            elif head.abandoned:
                formed.abandoned.append(self._take(shape))
            else:
                return

    def _take(self, shape: Hashable) -> Item:
        group = self._groups[shape]
        _, item = group.popleft()
        if not group:
            del self._groups[shape]
        self._waiting -= 1
        return item

    def _forget_abandoned(self) -> None:
        for shape, group in list(self._groups.items()):
            alive = deque(entry for entry in group if not entry[1].abandoned)
            self._waiting -= len(group) - len(alive)
            self.forgotten += len(group) - len(alive)
            if alive:
                self._groups[shape] = alive
            else:
                del self._groups[shape]
