from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from training.config import BadConfig, read_config
from training.detector.config import Backbone, DenseTeaching, DetectorConfig
from training.detector.student import model_of
from training.embedder.backbones.cost import macs, parameters

# What the checkpoints of two versions hold: the first default's, which had no head to choose, and the next one's.
FIRST = {
    "widths": [16, 48, 80, 112],
    "depths": [1, 2, 2, 2],
    "pyramid": 48,
    "anchors": {
        "strides": [8, 16, 32],
        "sizes": [[16, 30], [58, 110], [210, 400]],
        "aspect": 0.8,
        "variances": [0.1, 0.2],
    },
    "side": 320,
    "batch": 32,
    "epochs": 120.0,
    "decay_share": 0.3,
    "warmup_steps": 300,
    "learning_rate": 0.002,
    "weight_decay": 0.02,
    "ema": 0.998,
    "positive_iou": 0.35,
    "negative_iou": 0.28,
    "box_weight": 2.0,
    "landmark_weight": 0.5,
    "max_gradient_norm": 10.0,
    "longest": 800,
    "checkpoint_minutes": 3.0,
    "evaluate_epochs": 10.0,
    "seed": 7,
    "threads": 1,
    "compile": True,
}
SECOND = FIRST | {
    "widths": [32, 48, 48, 80],
    "depths": [1, 3, 3, 2],
    "stem": 16,
    "head": [48, 48],
    "context": False,
    "pyramid": 32,
    "dense_weight": 0.5,
    "labels_weight": 0.25,
    "hint_weight": 0.125,
    "hint_steps": 2500,
    "forced_steps": 500,
    "teacher_layers": ["a", "b", "c"],
}


def test_a_flat_configuration_means_what_it_meant() -> None:
    config = DetectorConfig.model_validate(SECOND)
    assert config.backbone.options == {"widths": (32, 48, 48, 80), "depths": (1, 3, 3, 2), "stem": 16}
    assert (config.sides, config.head, config.context, config.pyramid) == ((320,), (48, 48), False, 32)
    assert (config.schedule.warmup, config.schedule.decay) == (300, 0.3)
    assert (config.optimiser.learning_rate, config.optimiser.weight_decay) == (0.002, 0.02)
    assert (config.assignment.positive_iou, config.assignment.negative_iou) == (0.35, 0.28)
    assert (config.losses.weight, config.losses.box_weight, config.losses.landmark_weight) == (0.25, 2.0, 0.5)
    assert config.teacher.model_dump() == {
        "weight": 0.5,
        "layers": ("a", "b", "c"),
        "hint_weight": 0.125,
        "hint_steps": 2500,
        "forced_steps": 500,
    }


def test_the_networks_of_both_versions_are_built_with_the_names_they_had() -> None:
    first, second = (model_of(DetectorConfig.model_validate(of)) for of in (FIRST, SECOND))
    assert parameters(first) == 891_274
    assert parameters(second) == 659_690
    names = {name for name in first.state_dict() if not name.endswith("num_batches_tracked")}
    for expected in (
        "backbone.stem.1.0.weight",
        "backbone.stages.1.0.shortcut.1.weight",
        "backbone.stages.3.1.second.1.running_var",
        "pyramid.lateral.2.0.weight",
        "pyramid.smooth.0.1.bias",
        "context.0.near.0.weight",
        "context.2.far.2.running_mean",
        "outputs.2.bias",
    ):
        assert expected in names
    assert "context.1.1.0.weight" in second.state_dict()
    assert {name.split(".")[0] for name in names} == {"backbone", "pyramid", "context", "outputs"}


def test_a_flat_key_beside_a_section_changes_that_key_alone() -> None:
    config = DetectorConfig.model_validate({"optimiser": {"weight_decay": 0.5}, "learning_rate": 0.1})
    assert (config.optimiser.weight_decay, config.optimiser.learning_rate) == (0.5, 0.1)
    assert DetectorConfig.model_validate({"warmup_steps": 5}).schedule.decay == 0.3


def test_what_a_checkpoint_holds_is_read_back_as_it_was() -> None:
    config = DetectorConfig.model_validate(SECOND)
    assert DetectorConfig.model_validate(config.model_dump(mode="json")) == config
    other = DetectorConfig(backbone={"name": "mobilenet", "width": 0.25}, sides=(256, 320))
    assert DetectorConfig.model_validate_json(other.model_dump_json()) == other


@pytest.mark.parametrize(
    "file",
    [
        "detector.toml",
        "detector_resnet50.toml",
        "synthetic/detector.toml",
        "synthetic-small/detector.toml",
    ],
)
def test_the_committed_configurations_are_valid(repository: Path, file: str) -> None:
    assert read_config(DetectorConfig, repository / "training" / "configs" / file).epochs > 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epoch": 3}, "epoch"),
        ({"backbone": {"name": "resnet101"}}, "unknown; known are resnet, resnet18"),
        ({"backbone": {"name": "resnet50", "width": 0.5}}, "resnet50 takes no `width`"),
        ({"backbone": {"name": "mobilenet", "depths": [1, 1, 1, 1]}}, "takes no `depths`, only width"),
        ({"backbone": {"widths": [0, 8, 8, 8]}}, "positive"),
        ({"sides": [100]}, "multiples of the coarsest stride 32"),
        ({"sides": []}, "multiples"),
        ({"sides": [96], "anchors": {"strides": [32, 64], "sizes": [[16], [32]]}}, "stride 64"),
        ({"anchors": {"strides": [8, 32], "sizes": [[16], [32]]}}, "twice the one before"),
        ({"anchors": {"strides": [64], "sizes": [[16]]}}, "at most of stride 32"),
        ({"anchors": {"strides": [2, 4], "sizes": [[16], [32]]}}, "from 4 to 128"),
        ({"assignment": {"positive_iou": 0.3, "negative_iou": 0.4}}, "negative_iou"),
        ({"losses": {"weight": 0}, "teacher": {"weight": 0}}, "nothing would be learnt"),
        ({"teacher": {"forced_steps": 2}}, "forced_steps"),
        ({"teacher": {"hint_steps": 2}}, "three teacher.layers"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DetectorConfig.model_validate(values)


def test_a_wrong_key_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("epoch = 3\nsides = [33]\n")
    with pytest.raises(BadConfig, match=r"wrong\.toml: .*epoch"):
        read_config(DetectorConfig, tmp_path / "wrong.toml")


def test_without_a_teacher_its_part_is_off_and_the_rest_as_it_was() -> None:
    config = DetectorConfig.model_validate(SECOND)
    alone = config.alone()
    assert not alone.teacher.asked
    assert alone.teacher.hint_steps == 0
    assert alone.model_copy(update={"teacher": config.teacher}) == config
    assert DetectorConfig.model_validate(alone.model_dump(mode="json")) == alone
    with pytest.raises(BadConfig, match="give a dense teacher, or nothing is learnt"):
        DetectorConfig.model_validate({"losses": {"weight": 0}}).alone()


def test_the_recipe_for_gpus_is_retinaface_s_with_the_published_resnet50(repository: Path) -> None:
    config = read_config(DetectorConfig, repository / "training" / "configs" / "detector_resnet50.toml")
    with torch.device("meta"):
        model = model_of(config)
    classifier = 2048 * 1000 + 1000
    assert parameters(model.backbone) + classifier == 25_557_032
    assert f"{parameters(model) / 1e6:.1f}" == "30.7"
    assert f"{macs(model, (1, 3, 512, 640)) / 1e9:.1f}" == "63.2"
    sizes = [size for of in config.anchors.sizes for size in of]
    np.testing.assert_allclose(sizes, 16 * 2 ** (np.arange(15) / 3), rtol=1e-3)
    assert 16 < sizes[-1] == pytest.approx(406, abs=1)
    at = [config.schedule.factor(round(epoch * 402.5), round(80 * 402.5)) for epoch in (20, 54, 56, 67, 69)]
    assert at == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("teaching", "asked"),
    [
        ({}, True),
        ({"weight": 0}, False),
        ({"weight": 0, "layers": ("a", "b", "c"), "hint_steps": 5}, True),
        ({"weight": 0, "layers": ("a", "b", "c"), "hint_steps": 5, "hint_weight": 0}, False),
    ],
)
def test_a_teacher_is_asked_where_it_has_weight(teaching: dict[str, Any], asked: bool) -> None:
    assert DenseTeaching(**teaching).asked == asked


@pytest.mark.parametrize(
    ("backbone", "called"),
    [
        (Backbone(), "resnet 16-48-80-112"),
        (Backbone(name="resnet18", width=0.25), "resnet18 × 0.25"),
        (Backbone(name="resnet50"), "resnet50"),
        (Backbone(name="mobilenet"), "mobilenet"),
    ],
)
def test_a_backbone_is_called_by_what_tells_it_from_others(backbone: Backbone, called: str) -> None:
    assert str(backbone) == called
