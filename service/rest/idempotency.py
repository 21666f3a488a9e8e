"""The `Idempotency-Key` of a write: the same key and the same request are answered as the first time, and done once.

Rule: the digest covers what was asked, not how it was sent: a form that is sent again has another boundary and is the
same request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request

from service.errors import InvalidParameter
from service.recognition.enrolment import Idempotency
from service.rest.exchange import exchange_of

_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")


def idempotency_of(
    request: Request,
    parameters: BaseModel,
    answer: Callable[[Any], Mapping[str, Any]],
    pictures: Iterable[bytes] = (),
) -> Idempotency | None:
    """How often this write may happen: None without the header. Raises `InvalidParameter` for a key that is none."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = "Idempotency-Key must be 1 to 200 visible ASCII characters"
        raise InvalidParameter(message, parameter="Idempotency-Key")
    principal = exchange_of(request).principal
    assert principal is not None  # a route that writes is never public
    return Idempotency(principal.key_id, key, _digest(request, parameters, pictures), answer)


def _digest(request: Request, parameters: BaseModel, pictures: Iterable[bytes]) -> str:
    path = request.url.path.removeprefix("/v1")  # a verb is the same at the root
    try:
        asked = json.dumps(parameters.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    except (RecursionError, ValueError):
        raise InvalidParameter("metadata is nested too deeply", parameter="metadata") from None
    digest = hashlib.blake2b(digest_size=32)
    for piece in (
        request.method.encode(),
        path.encode(),
        asked.encode(),
        *pictures,
    ):
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.hexdigest()
