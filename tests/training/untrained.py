"""Two models that nobody trained, as the checkpoints that publishing takes, and the bundle that is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from training.data.identities import Faces
from training.data.synthetic import TERMS
from training.detector.config import DetectorConfig
from training.detector.train import model_of
from training.embedder.backbones import backbone
from training.embedder.config import Distillation, EmbedderConfig
from training.evaluation.floors import Floors
from training.export import ladder
from training.export.detector_forms import DetectorBudget
from training.export.embedder_forms import EmbedderBudget
from training.export.ladder import CANONICAL, EXACT
from training.gates import standing_policy
from training.loop import checkpoint
from training.loop.records import LEARNT_FROM, PHOTOGRAPHS, FaceRecord, Record

NO_FLOORS = Floors(lfw_least=0, fnmr_ratio_most=math.inf, recall_least=0, ap_over_yunet_least=math.inf)
EMBEDDER = EmbedderConfig(dimension=16, distillation=Distillation(weight=0), compile=False)
DETECTOR = DetectorConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), pyramid=16, compile=False)
POLICY = standing_policy(synthetic=True).model_copy(
    update={
        "fnmr_margin": 0.01,
        "variants": EmbedderBudget(fmr=1e-2, int8_pictures=4),
        "detector_variants": DetectorBudget(int8_pictures=4),
    }
)

LINEAGE = [
    {"backbone": "mbf", "steps": 4860, "sha256": "0" * 64},
    {"backbone": "mobilefacenet", "steps": 1215, "sha256": "1" * 64},
]
FACES = FaceRecord(name="faces", identities=6, faces=24, digest="0f", labels="official", terms=TERMS)
SCENES = Record(name="wider", pictures=14, faces=30, names="1e", labels="official, drawn", terms=TERMS)


def write_checkpoints(folder: Path, faces: Faces) -> tuple[Path, Path]:
    """The embedder's and the detector's, with statistics that fit the faces: answers differ from face to face."""
    torch.manual_seed(7)
    models = {"embedder": backbone("mobilefacenet", 16), "detector": model_of(DETECTOR)}
    seen = torch.from_numpy(faces.crops().copy()).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    for kind, model in models.items():
        for module in model.train().modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
        with torch.no_grad():
            model(seen[:, :, :96, :96] if kind == "detector" else seen)
        config = (EMBEDDER if kind == "embedder" else DETECTOR).model_dump(mode="json")
        state = {"kind": kind, "config": config, "step": 40, "average": model.eval().state_dict()}
        if kind == "embedder":
            state |= {"lineage": LINEAGE, LEARNT_FROM: [FACES.model_dump(mode="json")]}
        else:
            state[PHOTOGRAPHS] = [SCENES.model_dump()]
        checkpoint.save(folder / kind / "last.pt", state)
    (folder / "embedder" / "metrics.jsonl").write_text(
        '{"step": 20, "loss": 3.0}\n{"step": 40, "loss": 2.0}\n'
    )
    return folder / "embedder" / "last.pt", folder / "detector" / "last.pt"


@contextmanager
def paced() -> Iterator[None]:
    """No decision depends on how fast this machine is."""
    told = {CANONICAL: 10.0, EXACT: 4.0, "fp16": 5.0, "int8": 6.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "milliseconds", lambda calls: {kind: told[kind] for kind in calls})
        yield
