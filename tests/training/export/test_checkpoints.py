"""What is published is a checkpoint's slow average; a file that holds none is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training.embedder.backbones import backbone
from training.embedder.config import Distillation, EmbedderConfig
from training.export.checkpoints import trained_detector, trained_embedder
from training.loop import checkpoint
from training.loop.checkpoint import UnreadableCheckpoint

CONFIG = EmbedderConfig(dimension=16, distillation=Distillation(weight=0))
FACES = {
    "kind": "faces",
    "name": "friends",
    "identities": 3,
    "faces": 9,
    "digest": "0f",
    "labels": "official",
    "sources": ["summer"],
    "terms": "ask first",
}
OLDER = {"backbone": "mbf", "steps": 3, "sha256": "a" * 64}


def state(**changed: Any) -> dict[str, Any]:
    average = backbone("mobilefacenet", 16).state_dict()
    values = {"kind": "embedder", "config": CONFIG.model_dump(mode="json"), "step": 7, "average": average}
    return {name: value for name, value in {**values, **changed}.items() if value is not None}


def saved(folder: Path, **changed: Any) -> Path:
    checkpoint.save(folder / "last.pt", state(**changed))
    return folder / "last.pt"


def test_it_is_the_average_in_eval_mode_with_its_steps(tmp_path: Path) -> None:
    file = saved(tmp_path)
    trained = trained_embedder(file)
    assert (trained.config, trained.step, trained.lineage) == (CONFIG, 7, ())
    assert not trained.model.training
    for name, value in checkpoint.load(file)["average"].items():
        assert torch.equal(trained.model.state_dict()[name], value)


def test_it_tells_what_it_was_begun_from(tmp_path: Path) -> None:
    (of,) = trained_embedder(saved(tmp_path, lineage=[OLDER])).lineage
    assert of.model_dump() == OLDER


def test_it_tells_what_it_learnt_from(tmp_path: Path) -> None:
    (of,) = trained_embedder(saved(tmp_path, learnt_from=[FACES])).records
    assert of.model_dump(mode="json") == FACES
    (unknown,) = trained_embedder(saved(tmp_path)).records
    assert unknown.name == "not recorded"


def test_a_checkpoint_from_before_options_were_recorded_whole_is_published_with_all_of_them(
    tmp_path: Path,
) -> None:
    older = CONFIG.model_dump(mode="json")
    older["head"]["options"] = {"scale": 32.0, "margin": 0.3}
    recorded = trained_embedder(saved(tmp_path, config=older)).provenance()
    assert recorded["head"]["options"] == {"scale": 32.0, "margin": 0.3, "gradient": "exact"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kind": "detector"}, "not a checkpoint of the embedder"),
        ({"config": None}, "not a checkpoint of the embedder"),
        ({"config": {"rate": 3}}, "made by another version: rate: there is no such key"),
        ({"average": None}, "holds no 'average'"),
        ({"average": {"stem": torch.zeros(2)}}, "of another model: average: Missing key"),
        ({"lineage": [{**OLDER, "steps": -1}]}, "impossible lineage: 0.steps"),
        ({"learnt_from": [{**FACES, "kind": "rumour"}]}, "impossible records: 0: Input tag 'rumour'"),
    ],
)
def test_what_is_none_is_refused_in_one_line_with_the_way_out(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableCheckpoint) as raised:
        trained_embedder(saved(tmp_path, **changed))
    told = str(raised.value)
    assert told.startswith(str(tmp_path / "last.pt"))
    assert named in told
    assert "\n" not in told
    assert "another checkpoint" in told


def test_a_file_that_is_none_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpoint, match="no such checkpoint; train the detector first"):
        trained_detector(tmp_path / "last.pt")
    (tmp_path / "last.pt").write_bytes(b"half")
    with pytest.raises(
        UnreadableCheckpoint, match=r"cannot be read \(File is not a zip file\); name another"
    ):
        trained_detector(tmp_path / "last.pt")
