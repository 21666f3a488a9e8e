"""docs/training.md as programs read it: its TOML blocks, and the tables of its second half."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from training.config import REPOSITORY

PAGE = REPOSITORY / "docs" / "training.md"


def sections() -> dict[str, str]:
    """Heading → the text below it, of the third level."""
    parts = re.split(r"^#{2,3} (.+)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def toml_blocks() -> dict[str, dict[str, Any]]:
    """Heading → what the section's TOML block says; a section has one at most."""
    found = {}
    for heading, text in sections().items():
        if blocks := re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            (block,) = blocks
            found[heading] = tomllib.loads(block)
    return found


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's tables, line by line, without the tables' heads."""
    lines = [line for line in sections()[heading].splitlines() if line.startswith("|")]
    heads = {place - 1 for place, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for place, line in enumerate(lines)
        if place not in heads and not line.startswith("|---")
    ]


def values(text: str) -> dict[str, Any]:
    """What stands as `name` value or name = value: numbers, lists of them and quoted words."""
    told = re.findall(r'`?\.?([\w.]+)(?:` | = )(\[[^\]]*\]|[\d.]+(?:e-?\d+)?|"\w+")(?=[\s,;|}]|$)', text)
    return {name: tomllib.loads(f"value = {value}")["value"] for name, value in told}
