"""What docs/training.md tells people to write is accepted, and the defaults that it names are those of the code."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest

from tests.training_page import rows, sections, toml_blocks, values
from training.config import RunConfig
from training.data.augment import Augmentation
from training.data.sampling import Shuffled
from training.detector.config import DetectorConfig
from training.embedder.config import Distillation, EmbedderConfig, HeadLoss, MetricLosses
from training.embedder.margins import MARGINS
from training.loop.schedule import TAKES, Schedule

BLOCKS: dict[str, type[RunConfig]] = {
    "3. Configure": EmbedderConfig,
    "5. Detector": DetectorConfig,
    "IResNet-50 on GPUs": EmbedderConfig,
}
TRAINED = 0.85  # of the people: the share of the split "train"


def test_every_block_is_a_configuration() -> None:
    blocks = toml_blocks()
    assert blocks.keys() == BLOCKS.keys()
    for heading, told in blocks.items():
        config = BLOCKS[heading].model_validate(told).model_dump()
        assert told.keys() <= config.keys()


def test_the_embedder_s_recipe_has_room_in_the_least_set_that_can_be_published() -> None:
    least = re.search(r"in `calibration` \| (\d+), or (\d+) \|", sections()["1. A folder for each person"])
    assert least
    config = EmbedderConfig.model_validate(toml_blocks()["3. Configure"])
    named = []
    for people, pictures in zip(map(int, least.groups()), (2, 3), strict=True):
        faces = math.floor(TRAINED * people) * pictures
        total = int(config.epochs * Shuffled(faces, config.batch, seed=0).batches_per_epoch)
        assert config.schedule.factor(total, total) == 0
        assert config.schedule.factor(config.schedule.warmup, total) == 1
        named.append(f"{total} for the least that step 1 names ({faces} faces)")
    assert named[0] in sections()["3. Configure"].replace("\n", " ")


def assert_defaults(of: RunConfig, told: dict[str, Any], least: int) -> None:
    """least: how many the page names; with fewer this test would have lost its table."""
    assert len(told) >= least
    for name, value in told.items():
        found = getattr(of, name)
        assert (list(found) if isinstance(found, tuple) else found) == value, name


def written(value: Any) -> str:
    """As the page writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_tables_defaults_are_the_configuration_s() -> None:
    config, told = EmbedderConfig(), dict[str, Any]()
    for keys, defaults, *_ in rows("Everything else"):
        names, given = re.findall(r"`(\w+)`", keys), defaults.split(", ")
        if names == ["optimiser"]:
            assert given[0] == f"`{config.optimiser.name}`"
            assert_defaults(config.optimiser, values(defaults), 2)
        else:
            told |= zip(names, given, strict=True)
    assert told.pop("micro_batch") == "all"
    assert config.micro_batch is None
    assert {name: value.strip("`") for name, value in told.items()} == {
        name: written(getattr(config, name)) for name in told
    }


def test_the_augmentation_s_defaults_are_the_configuration_s() -> None:
    told = dict[str, Any]()
    for keys, *rest in rows("Sampling, augmentation, schedule"):
        if probability := re.fullmatch(r"([\d.]+)(?: each)?", rest[0]):
            told |= dict.fromkeys(re.findall(r"`(\w+)`", keys), float(probability[1])) | values(rest[1])
    assert_defaults(Augmentation(), told, len(Augmentation.model_fields))


def test_the_losses_and_schedules_defaults_are_the_configuration_s() -> None:
    head = values(sections()["Heads (`head`)"].partition("}")[0])
    assert_defaults(HeadLoss(), head, 4)
    told = dict[str, Any]()
    for keys, *_ in rows("Other losses"):
        told |= {name.rpartition(".")[2]: value for name, value in values(keys).items()}
    for config in (MetricLosses(), Distillation()):
        assert_defaults(
            config, {name: of for name, of in told.items() if name in type(config).model_fields}, 2
        )
    assert told.keys() <= MetricLosses.model_fields.keys() | Distillation.model_fields.keys()
    for name, *_, options in rows("Sampling, augmentation, schedule"):
        if (of := name.strip("`")) in TAKES:
            assert_defaults(Schedule(), {} if of == "steps" else values(options), 0 if of == "steps" else 1)


@pytest.mark.parametrize("name", MARGINS)
def test_a_margin_s_defaults_are_its_own(name: str) -> None:
    (options,) = (cells[2] for cells in rows("Heads (`head`)") if cells[0] == f"`{name}`")
    defaults = {
        option: of.default
        for option, of in inspect.signature(MARGINS[name].__init__).parameters.items()
        if option != "self"
    }
    told = dict(of.split(" ", 1) for of in options.split(", "))
    assert told == {
        f"`{option}`": f'"{of}"' if isinstance(of, str) else written(of) for option, of in defaults.items()
    }
