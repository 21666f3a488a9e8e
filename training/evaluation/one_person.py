"""Two labels that are one person: found by an independent embedder, never by the one that is calibrated.

Leaving such a pair in makes thresholds too strict; taking a true look-alike out makes the promise false. So
the rule is strict, fixed before any result is seen, and every pair that it takes out is recorded with its
reason.
"""

from __future__ import annotations

import numpy as np

from bundle.calibration import ExcludedPair
from training.evaluation.verification import related


def one_person_pairs(
    embedding: np.ndarray, identity: np.ndarray, family: np.ndarray
) -> tuple[ExcludedPair, ...]:
    """Pairs of labels more alike, on average over all their pictures, than half of the people are to
    themselves.

    embedding: float32 [n, d] unit vectors of the independent embedder; identity: int [n]; family: str [n],
    empty where unknown. Kin are left alone: they look alike, and are in no curve anyway. At least one
    person needs two pictures.
    """
    people, label, counts = np.unique(identity, return_inverse=True, return_counts=True)
    total = np.zeros((len(people), embedding.shape[1]))
    np.add.at(total, label, embedding)
    several = counts > 1
    if not several.any():
        raise ValueError("nobody has two pictures: there is no telling how alike one person's pictures are")
    # Σ over a person's pairs of pictures is |Σ v|² less the n products of a picture with itself.
    within = ((total[several] ** 2).sum(1) - counts[several]) / (counts[several] * (counts[several] - 1))
    limit = float(np.median(within))
    mean = total / counts[:, None]
    alike = np.triu(mean @ mean.T, 1)
    alike[related(label, family)] = -1
    found = np.argwhere(alike >= limit)
    return tuple(
        ExcludedPair(
            first=int(people[a]),
            second=int(people[b]),
            reason=f"mean similarity {alike[a, b]:.3f} by another embedder; half of all reach {limit:.3f}",
        )
        for a, b in found
    )
