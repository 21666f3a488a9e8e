"""Where the data lies, and how a run's TOML, or what a run left of it, becomes a typed, frozen configuration."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

REPOSITORY = Path(__file__).resolve().parent.parent


class BadConfig(Exception):
    """A configuration with an unknown or impossible value; the message names each."""


class RunConfig(BaseModel):
    """What every run's configuration shares: unknown keys are refused, values do not change, numbers are finite and no
    booleans. A policy in which `inf` switches a limit off says `allow_inf_nan=True`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _booleans_where_they_are_expected(cls, values: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(values, Mapping) else ():
            kind = field.annotation
            nested = isinstance(kind, type) and issubclass(kind, BaseModel)  # which looks at its own fields
            if kind is not bool and not nested and _holds_boolean(values.get(name)):
                raise ValueError(f"{name} takes neither true nor false")  # pydantic would read 1 and 0
        return values


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return isinstance(value, bool) or (isinstance(value, (list, tuple)) and any(map(_holds_boolean, value)))


Config = TypeVar("Config", bound=RunConfig)


def read_config(kind: type[Config], path: Path) -> Config:
    """From a .toml file, or from the config.json that a run left. Raises BadConfig with every wrong key and what was
    expected."""
    try:
        return kind.model_validate(_values(path))
    except ValidationError as error:
        raise BadConfig(f"{path}: {wrong_values(error)}") from error


def _values(path: Path) -> Any:
    if path.suffix not in (".toml", ".json"):
        raise BadConfig(f"{path}: a configuration is a .toml file, or the config.json that a run left")
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        left = json.loads(text)  # see training.loop.tracking.write_evidence
    except ValueError as error:  # UnicodeDecodeError too
        raise BadConfig(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(left, dict) or "config" not in left:
        raise BadConfig(f"{path}: not what a run leaves: it holds no `config`")
    return left["config"]


def wrong_values(error: ValidationError) -> str:
    """Every wrong key and what was expected of it, in one line: "epochs: Input should be greater than 0; …"."""
    told = []
    for wrong in error.errors():
        if wrong["type"] == "extra_forbidden":
            what = "there is no such key"
        elif wrong["type"] == "value_error":
            what = str(wrong["ctx"]["error"])  # a check of our own; the message has "Value error, " before it
        else:
            what = wrong["msg"]
        place = ".".join(map(str, wrong["loc"]))
        told.append(f"{place}: {what}" if place else what)
    return "; ".join(told)


def datasets() -> Path | None:
    """The folder of data sets: FACET_DATASETS, else ../shared/data where present, else None (synthetic)."""
    named = os.environ.get("FACET_DATASETS")
    if named:
        if not Path(named).is_dir():
            raise BadConfig(f"FACET_DATASETS={named}: no such folder")
        return Path(named)
    beside = REPOSITORY.parent / "shared" / "data"
    return beside if beside.is_dir() else None
