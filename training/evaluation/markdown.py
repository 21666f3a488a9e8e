"""The few forms of Markdown that the report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.evaluation.bootstrap import Interval

NOTHING = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with one line for each row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """A list with one line each."""
    return "\n".join(f"- {line}" for line in lines)


def share(of: Interval | None) -> str:
    """A share in per cent with its interval; a dash for what was not measured."""
    return f"{of.value:.2%} ({of.low:.2%} to {of.high:.2%})" if of else NOTHING


def rate(of: Interval | None) -> str:
    """A small rate with its interval; a dash for what was not measured."""
    return f"{of.value:.2g} ({of.low:.2g} to {of.high:.2g})" if of else NOTHING
