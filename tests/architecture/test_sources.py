"""House rules that a machine can hold: every module says what it is for, and none is called after nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED_AFTER_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
MODULES = sorted(
    path
    for package in ("bundle", "service", "training", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
    if "generated" not in path.parts
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if not tree.body:
        assert path.name == "__init__.py"
        return
    assert ast.get_docstring(tree), "a module opens with one sentence: what it is for"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_by_a_noun(path: Path) -> None:
    assert not NAMED_AFTER_NOTHING & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


def test_no_tests_folder_is_a_package() -> None:
    # tests/service/__init__.py would hide the real package `service`
    assert not list((ROOT / "tests").rglob("__init__.py"))
