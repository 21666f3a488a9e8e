"""Which faces a step takes: a function of (seed, step, rank, world size) alone, so that a resumed run goes on exactly.

Choose one sampler: balancing twice (a balanced sampler and class weights, say) counts rare people twice.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from training.data.pictures import BadData


class Sampler(Protocol):
    """What the training loop knows of a sampler."""

    @property
    def batches_per_epoch(self) -> int:
        """Steps until every epoch's faces have been handed out; each of them a full batch on every rank."""

    def batch(self, step: int) -> np.ndarray:
        """int64 [b], this rank's faces of step 0, 1, …, over all epochs."""


class Shuffled:
    """Every epoch another permutation: no face twice in it, on whatever rank.

    What does not fill a batch on every rank is left out, other faces each epoch.
    """

    def __init__(self, faces: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """batch: faces a rank and step. Raises BadData for fewer faces than one step takes."""
        if faces < batch * world:
            raise BadData(
                f"{faces} faces are fewer than one batch of {batch}{f' on each of {world} ranks' * (world > 1)}: lower "
                "`batch`"
            )
        self.faces, self.size, self.seed, self.rank, self.world = faces, batch, seed, rank, world
        self.batches_per_epoch = faces // (batch * world)
        self._latest = (-1, np.empty(0, np.int64))  # the epoch in hand, and its order

    def batch(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.batches_per_epoch)
        latest, order = self._latest
        if latest != epoch:
            order = self.order(epoch)
            self._latest = (epoch, order)
        start = (place * self.world + self.rank) * self.size
        return order[start : start + self.size]

    def order(self, epoch: int) -> np.ndarray:
        """int64 [faces], the epoch's faces over all ranks, those that will be left out last."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.faces)


class Balanced(Shuffled):
    """A person with n pictures is drawn as often as n^(1 − balance): 0 is no balance, 1 gives all people equal shares.

    An epoch still has as many draws as faces; a person's are spread over their pictures, and no picture, nor person,
    comes up more than one draw away from its share (systematic sampling).
    """

    def __init__(
        self, label: np.ndarray, batch: int, seed: int, rank: int = 0, world: int = 1, *, balance: float = 1.0
    ) -> None:
        """label: int [n], 0 … people − 1; balance in 0–1."""
        super().__init__(len(label), batch, seed, rank, world)
        self.label = label
        self.weight = np.bincount(label)[label] ** -float(balance)

    def order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        by_person = np.lexsort((rng.random(self.faces), self.label))
        reach = np.cumsum(self.weight[by_person])
        at = (np.arange(self.faces) + rng.random()) / self.faces * reach[-1]
        drawn = np.searchsorted(reach, at, side="right").clip(
            max=self.faces - 1
        )  # the sum's last digits may differ
        return rng.permutation(by_person[drawn])


class PK:
    """`people` × `pictures` a rank and step, person by person: the batches of triplet mining.

    People with one picture have no positive and are excluded; `singletons` says how many. An epoch visits each other
    person once, on one rank; who does not fill a batch on every rank is left out, others each epoch. A person with
    fewer pictures gives each of them before any a second time.
    """

    def __init__(
        self, label: np.ndarray, people: int, pictures: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """Raises BadData where fewer people have two pictures than one step takes."""
        self.members = Members(label)
        paired = np.flatnonzero(self.members.counts >= 2)
        self.singletons = int((self.members.counts == 1).sum())
        if len(paired) < people * world:
            raise BadData(
                f"{len(paired)} people have two or more pictures ({self.singletons} have one); a step takes "
                f"{people * world}: lower `people`"
            )
        self.paired, self.pictures, self.seed, self.rank = paired, pictures, seed, rank
        self._visits = Shuffled(len(paired), people, seed, rank, world)

    @property
    def batches_per_epoch(self) -> int:
        return self._visits.batches_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """int64 [people · pictures], the pictures of one person side by side."""
        rng = np.random.default_rng((self.seed, step, self.rank))
        chosen = []
        for who in self.paired[self._visits.batch(step)]:
            own = self.members[who]
            rounds = [rng.permutation(own) for _ in range(-(-self.pictures // len(own)))]
            chosen.append(np.concatenate(rounds)[: self.pictures])
        return np.concatenate(chosen)


class Members:
    """Whose face is whose, without a search: `[label]` is int64 [k], one person's faces. counts: int64 [people]."""

    def __init__(self, label: np.ndarray) -> None:
        self.counts = np.bincount(label)
        self._faces = np.argsort(label, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __getitem__(self, label: int) -> np.ndarray:
        return self._faces[self._starts[label] : self._starts[label + 1]]
