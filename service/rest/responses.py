"""How an answer is written: plain dictionaries through orjson, without validating what the core already promised.

Rule: whoever builds the dictionary builds exactly the shape of `schemas.py`; a test validates answers against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


class Answer(Response):
    """A JSON answer; numpy values and arrays, aware datetimes and dataclasses are written as they are."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, headers)

    def render(self, content: Any) -> bytes:
        """JSON bytes; NaN and infinity become null."""
        try:
            return orjson.dumps(content, option=_OPTIONS)
        except (
            orjson.JSONEncodeError
        ):  # a caller's own metadata may hold integers over 64 bits, or be nested deeply
            return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


def no_content() -> Response:
    """204: it is done and there is nothing to say."""
    return Response(status_code=204)
