"""How well a model tells people apart who were not trained on: what the best checkpoint is chosen by."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from training.data.identities import Faces
from training.embedder.distillation import normalise
from training.evaluation.verification import TooFewImpostors, all_pairs, fnmr_at_fmr

FMRS = (1e-2, 1e-3)
GATED = "fnmr@0.001"  # what the best checkpoint is chosen by
MOST = 5_000  # faces that are compared, each with each: 12 million pairs in 250 MB


@torch.inference_mode()
def embed(model: nn.Module, crops: np.ndarray, batch: int = 64) -> np.ndarray:
    """uint8 [n, 112, 112, 3] → float32 [n, d] unit vectors, model in eval mode, fp32."""
    model.eval()
    device = next(model.parameters()).device
    parts = [
        model(normalise(torch.from_numpy(np.ascontiguousarray(crops[i : i + batch])).to(device)))
        for i in range(0, len(crops), batch)
    ]
    return F.normalize(torch.cat(parts)).cpu().numpy()


def validate(model: nn.Module, validation: Faces) -> dict[str, float]:
    """FNMR at those of FMRS that the impostor pairs of `compared(validation)` can carry, kin apart. Raises
    NotUnitVectors."""
    rows = compared(validation)
    embedding = embed(model, validation.crops()[rows])
    scores = all_pairs(embedding, validation.identity[rows], validation.family[rows])
    results = {}
    for fmr in FMRS:
        try:
            results[f"fnmr@{fmr:g}"] = fnmr_at_fmr(scores, fmr)[0]
        except TooFewImpostors:
            continue  # a tiny set (the synthetic one) carries only the coarser rate
    return results


def compared(validation: Faces) -> np.ndarray | slice:
    """The rows that `validate` measures: all up to MOST faces, else the same MOST of them each time.

    Those are the pictures of people in an order drawn with a fixed seed, every picture of one before the next person's,
    so that they hold as many mated pairs as MOST faces of this set can.
    """
    if len(validation) <= MOST:
        return slice(None)
    _, person = np.unique(validation.identity, return_inverse=True)
    order = np.random.default_rng(0).permutation(int(person.max()) + 1)
    return np.sort(np.argsort(order[person], kind="stable")[:MOST])
