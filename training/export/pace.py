"""How long a face takes, by processor time and side by side: whatever else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

WARM_UP = 2


def milliseconds(calls: Mapping[str, Callable[[], object]], rounds: int = 25) -> dict[str, float]:
    """The median processor time of each call, in milliseconds; in every round each runs once.

    Processor time counts every thread of this process: give sessions one thread each, for a waiting one spins.
    """
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            taken[name].append(time.process_time() - started)
    return {name: round(float(np.median(seconds)) * 1e3, 3) for name, seconds in taken.items()}
