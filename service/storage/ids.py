"""Ids: a short prefix that tells what it names, then 100 random bits. Random, so that an id is never used
again."""

from __future__ import annotations

import base64
import secrets

LENGTH = 24  # of a whole id, at most


def new_id(prefix: str) -> str:
    """`new_id("per")` → `per_` and 20 characters of a–z, 2–7."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(13)).decode()[:20].lower()}"
