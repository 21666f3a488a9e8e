"""What is wrong with a configuration is said by name, in one line that reads well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from training.config import BadConfig, RunConfig, read_config, wrong_values
from training.evaluation.floors import Floors
from training.gates import Policy
from training.loop.tracking import write_evidence


class Inner(RunConfig):
    low: float = Field(0.0, ge=0)
    high: float = 1.0

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Outer(RunConfig):
    inner: Inner = Inner()
    kind: Literal["a", "b"] = "a"
    count: int = 1
    shares: tuple[float, ...] = ()
    options: dict[str, float | str] = Field({})
    loud: bool = False

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if not self.count % 2:
            raise ValueError("count has to be odd: 3, say")
        return self


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("count = 2", "count has to be odd: 3, say"),
        ("inner = { low = 2.0 }", "inner: low is above high"),
        ("inner = { low = -1 }", "inner.low: Input should be greater than or equal to 0"),
        ("cuont = 3", "cuont: there is no such key"),
        ("kind = 'c'", "kind: Input should be 'a' or 'b'"),
        (
            "kind = 'c'\ninner = { mid = 1 }",
            "inner.mid: there is no such key; kind: Input should be 'a' or 'b'",
        ),
        ("inner = { high = inf }", "inner.high: Input should be a finite number"),
        ("inner = { high = nan }", "inner.high: Input should be a finite number"),
        ("shares = [0.5, -inf]", "shares.1: Input should be a finite number"),
        ("count = true", "count takes neither true nor false"),
        ("inner = { low = false }", "inner: low takes neither true nor false"),
        ("shares = [0.5, true]", "shares takes neither true nor false"),
        ("options = { margin = true }", "options takes neither true nor false"),
    ],
)
def test_every_wrong_value_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(BadConfig) as raised:
        read_config(Outer, file)
    assert str(raised.value) == f"{file}: {told}"


@pytest.mark.parametrize("content", [b"count =", b"\xff\xfe\x00c"])
def test_what_is_no_toml_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(BadConfig, match=r"run\.toml: not valid TOML: ") as raised:
        read_config(Outer, tmp_path / "run.toml")
    assert "\n" not in str(raised.value)


def test_a_value_refused_in_code_reads_alike() -> None:
    with pytest.raises(ValidationError) as raised:
        Outer(count=2)
    assert wrong_values(raised.value) == "count has to be odd: 3, say"


def test_a_boolean_is_read_where_one_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("loud = true\ninner = { low = 0 }")
    assert read_config(Outer, file) == Outer(loud=True)


@pytest.mark.parametrize(
    ("policy", "limit"), [(Policy, "times_old_most"), (Floors, "lfw_least"), (Floors, "fnmr_ratio_most")]
)
def test_infinity_switches_a_policy_s_limit_off_and_no_number_at_all_does_not(
    policy: type[RunConfig], limit: str
) -> None:
    assert getattr(policy.model_validate({limit: math.inf}), limit) == math.inf
    with pytest.raises(ValidationError):
        policy.model_validate({limit: math.nan})


def test_what_a_run_left_is_read_as_the_configuration_that_it_had(tmp_path: Path) -> None:
    made = Outer(inner=Inner(low=0.5), kind="b", count=3)
    write_evidence(tmp_path, 0, made.model_dump(mode="json"))
    assert read_config(Outer, tmp_path / "config.json") == made


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("run.json", "{", "not valid JSON: Expecting property name"),
        ("run.json", "\u201c", "not valid JSON: "),
        ("run.json", "[]", "not what a run leaves: it holds no `config`"),
        ("run.json", '{"count": 3}', "not what a run leaves: it holds no `config`"),
        ("run.json", '{"config": {"cuont": 3}}', "cuont: there is no such key"),
        ("run.json", '{"config": 3}', "valid dictionary"),
        ("run.yaml", "count: 3", "a configuration is a .toml file, or the config.json that a run left"),
        ("run", "count = 3", "a configuration is a .toml file, or the config.json that a run left"),
    ],
)
def test_another_file_is_refused_by_what_it_is(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadConfig) as raised:
        read_config(Outer, tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path / name}: ")
    assert told in str(raised.value)
