"""Learning-rate schedules as plain functions of the step."""

from __future__ import annotations


def warmup_stable_decay(step: int, total: int, warmup: int, decay: int) -> float:
    """Factor in 0–1: linear up over `warmup` steps, 1, then linear to 0 over the last `decay` (arXiv 2405.18392).

    The plateau is what lets a run be lengthened after the fact: only the decay depends on `total`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if step > total - decay:
        return max(0.0, (total - step) / max(1, decay))
    return 1.0
