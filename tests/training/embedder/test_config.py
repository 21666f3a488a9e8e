"""A configuration that could not be trained with is refused before any data is read, and the value is named."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from training.config import BadConfig, read_config
from training.embedder.config import EmbedderConfig, HeadLoss
from training.embedder.margins import MARGINS, margin

PK = 'batch = 64\nsampling = { name = "pk" }\n'


def read(folder: Path, text: str) -> EmbedderConfig:
    (folder / "run.toml").write_text(text)
    return read_config(EmbedderConfig, folder / "run.toml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs = 'many'", "epochs"),
        ("epochs = 0", "epochs: .*greater than 0"),
        ("learning_rat = 0.1", "learning_rat"),
        ("ema = 1.0\nbatch = 1", "batch: .*; ema: "),
        ("epochs =", "not valid TOML"),
        ("epochs = inf", "epochs: .*finite"),
        ("optimiser = { learning_rate = inf }", "optimiser.learning_rate: .*finite"),
        ("optimiser = { weight_decay = inf }", "optimiser.weight_decay: .*finite"),
        ("schedule = { name = 'polynomial', power = inf }", "schedule.power: .*finite"),
        ("head = { weight = inf }", "head.weight: .*finite"),
        ("distillation = { weight = inf }", "distillation.weight: .*finite"),
        (PK + "metric = { triplet = inf }", "metric.triplet: .*finite"),
        ("head = { options = { margin = inf } }", "head.options.margin.*finite"),
        ("head = { options = { margin = true } }", "head: options takes neither true nor false"),
        ("seed = 9223372036854775808", "seed: .*less than 9223372036854775808"),
        ("device = 'tpu'", "device: .*'cuda'"),
        ("precision = 'int8'", "precision: .*'bf16'"),
        (
            "backbone = 'resnet50'",
            "backbone: .*'resnet50' is unknown; known are mobilefacenet, mobilefacenet_quick, mbf",
        ),
        ("head = { name = 'arcfase' }", "head: margin 'arcfase' is unknown; known are arcface, cosface"),
        ("head = { options = { margins = 0.3 } }", "head: .*arcface has no option margins; it has scale"),
        ("head = { options = { margin = 3.0 } }", "head: .*margin must lie in 0 … 1.57.*got 3.0"),
        ("head = { options = { gradient = 'none' } }", "head: .*gradient must be"),
        ("head = { sample_rate = 0 }", "head.sample_rate: "),
        (
            "head = { name = 'softmax', options = { label_smoothing = 0.1 }, sample_rate = 0.5 }",
            "head: .*label_smoothing .* needs sample_rate = 1",
        ),
        ("optimiser = { name = 'lion' }", "optimiser.name"),
        ('optimiser = { name = "muon" }', '"muon" is for detectors: class centres learn by adamw or sgd'),
        ("optimiser = { momentum = 0.5 }", 'optimiser: .*momentum is an option of "sgd"'),
        ("schedule = { name = 'cosine', decay = 0.5 }", "schedule: .*cosine takes no `decay`"),
        ("sampling = { people = 8 }", 'sampling: .*people is an option of "pk", not of "shuffled"'),
        ("sampling = { name = 'pk', balance = 0.5 }", 'balance is an option of "balanced", not of "pk"'),
        ("batch = 60\nsampling = { name = 'pk' }", "batch 60 is not people × pictures = 16 × 4"),
        ("metric = { triplet = 1.0 }", 'triplets need several pictures.*sampling.name = "pk"'),
        (
            PK + "metric = { triplet = 1.0 }\nmicro_batch = 4",
            "batches of 4 faces, one person's 4: .* two people",
        ),
        ("batch = 3\nmicro_batch = 2", "micro_batch 2 cuts a batch of 3 down to 1"),
        (
            "batch = 4\nmicro_batch = 2\ndistillation = { relational = 1.0 }",
            "down to 2: .* distillation three",
        ),
        ("distillation = { forced_steps = 5 }", "forced_steps are the first of hint_steps"),
        ("distillation = { hint_weight = 0 }", "distillation.hint_weight: "),
        ("backbone = 'mbf'\ndistillation = { hint_steps = 5 }", "hints are layers of .*MobileFaceNet"),
        ("head = { weight = 0 }\ndistillation = { weight = 0 }", "all have weight 0"),
        ("head = { weight = 0 }\ndistillation = { weight = 0, hint_steps = 9 }", "hints end after"),
        ("head = { weight = 0 }\ndistillation = { weight = 0 }\nmetric = { centre = 1.0 }", "to one place"),
    ],
)
def test_a_wrong_configuration_names_every_wrong_value(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["", "synthetic", "synthetic-small"])
def test_the_committed_configurations_are_valid(name: str, repository: Path) -> None:
    config = read_config(EmbedderConfig, repository / "training" / "configs" / name / "embedder.toml")
    assert config.distilled == (not name)  # drawn people have no teacher
    assert EmbedderConfig.model_validate(config.model_dump(mode="json")) == config


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    config = read(tmp_path, "")
    assert config == EmbedderConfig()
    assert (config.backbone, config.head.name, config.distilled) == ("mobilefacenet", "arcface", True)


def test_another_head_begins_with_its_own_options(tmp_path: Path) -> None:
    default = {"scale": 32.0, "margin": 0.3, "gradient": "exact"}
    assert read(tmp_path, "head = { weight = 1.0 }").head.options == default
    assert read(tmp_path, "head = { name = 'softmax' }").head.options == {"scale": 64, "label_smoothing": 0}
    chosen = read(tmp_path, "head = { name = 'cosface', options = { margin = 0.2 } }")
    assert chosen.head.options == {"scale": 64, "margin": 0.2}


@pytest.mark.parametrize("name", MARGINS)
def test_a_configuration_holds_every_option_that_its_margin_computes_with(name: str) -> None:
    options, of = HeadLoss(name=name, options={}).options, margin(name)
    assert options == {option: getattr(of, option) for option in inspect.signature(MARGINS[name]).parameters}
    assert HeadLoss(name=name, options=options).options == options


def test_the_gradient_is_recorded_and_the_one_that_is_named_wins() -> None:
    older = {"name": "arcface", "options": {"scale": 32.0, "margin": 0.3}}  # as runs left it before
    assert HeadLoss.model_validate(older).options == HeadLoss().options | {"gradient": "exact"}
    named = HeadLoss.model_validate({"options": {"gradient": "straight_through"}})
    assert named.options == {"scale": 64.0, "margin": 0.5, "gradient": "straight_through"}


@pytest.mark.parametrize(
    ("batch", "micro_batch", "fewest"), [(64, None, 64), (64, 64, 64), (64, 20, 16), (7, 3, 2), (8, 100, 8)]
)
def test_the_smallest_micro_batch_is_known(batch: int, micro_batch: int | None, fewest: int) -> None:
    assert EmbedderConfig(batch=batch, micro_batch=micro_batch).fewest == fewest


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EmbedderConfig().batch = 8  # type: ignore[misc]
