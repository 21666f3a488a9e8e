"""What the caller's own texts may be. Every text passes here before it reaches a table.

Both databases must take the same: PostgreSQL knows no NUL, no lone surrogates and no NaN in JSON.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from service.errors import InvalidParameter

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # not a backslash of the text's own before the u
TEXT_LIMIT = 256  # characters
METADATA_LIMIT = 16_384  # bytes of JSON
METADATA_DEPTH = 32  # what is nested deeper may be written and then be too deep to be read or answered again


def slug(value: str) -> str:
    """A gallery's id."""
    if not SLUG.fullmatch(value):
        raise InvalidParameter(
            "a gallery's id is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit",
            parameter="id",
        )
    return value


def text(parameter: str, value: str | None) -> str | None:
    """A name or an external id: 1 to 256 printable-ish characters, or nothing."""
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_LIMIT:
        raise InvalidParameter(
            f"{parameter} must be a text of 1 to {TEXT_LIMIT} characters", parameter=parameter
        )
    if "\0" in value or not _encodable(value):
        raise InvalidParameter(f"{parameter} holds characters that cannot be stored", parameter=parameter)
    return value


def metadata(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """The caller's JSON object, at most 16 KiB."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidParameter("metadata must be a JSON object", parameter="metadata")
    try:
        written = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        size = len(written.encode())
        clean: dict[str, Any] = json.loads(written)  # what will be read back: string keys, lists for tuples
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        raise InvalidParameter("metadata must be a JSON object", parameter="metadata") from None
    if size > METADATA_LIMIT:
        raise InvalidParameter(f"metadata is over {METADATA_LIMIT} bytes", parameter="metadata")
    if _deeper(clean, METADATA_DEPTH):
        raise InvalidParameter(
            f"metadata is nested deeper than {METADATA_DEPTH} levels", parameter="metadata"
        )
    if ESCAPED_NUL.search(written):
        raise InvalidParameter("metadata holds characters that cannot be stored", parameter="metadata")
    return clean


def cursor(after: int | str) -> str:
    """The opaque cursor that continues after a row."""
    return base64.urlsafe_b64encode(str(after).encode()).decode().rstrip("=")


def after(cursor: str | None) -> str:
    """What `cursor` was made from; "" at the beginning."""
    if cursor is None:
        return ""
    try:
        row = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
        row = ""
    if not SLUG.fullmatch(row):  # a gallery's id or a row's number
        raise InvalidParameter("this cursor was not given out here", parameter="cursor")
    return row


def after_number(cursor: str | None) -> int:
    """What `cursor` was made from, for rows that are numbered; 0 at the beginning."""
    number = after(cursor)
    if number and not re.fullmatch(r"\d{1,18}", number, re.ASCII):
        raise InvalidParameter("this cursor was not given out here", parameter="cursor")
    return int(number or 0)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _deeper(value: Any, levels: int) -> bool:
    """Whether JSON is nested deeper than `levels`, found without recursion."""
    level = [value]
    for _ in range(levels + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [
            child for each in containers for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not containers:
            return False
    return True
