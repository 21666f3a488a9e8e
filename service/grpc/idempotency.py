"""The `idempotency-key` of a call: the same key and the same request are answered as the first time, and done once.

Rule: the digest covers the fields of the request and its verb; the request id and the deadline are not part of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from service.errors import InvalidParameter
from service.grpc.call import Call
from service.recognition.enrolment import Idempotency

_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")


def idempotency_of(
    call: Call, request: Message, answer: Callable[[Any], Mapping[str, Any]]
) -> Idempotency | None:
    """How often this write may happen: None without the key. Raises `InvalidParameter` for a key that is none."""
    key = call.idempotency_key
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = "idempotency-key must be 1 to 200 visible ASCII characters"
        raise InvalidParameter(message, parameter="idempotency-key")
    content = request.SerializeToString(
        deterministic=True
    )  # equal messages, equal bytes: `metadata` is a map
    digest = hashlib.blake2b(call.verb.encode() + b"\0" + content, digest_size=32).hexdigest()
    return Idempotency(call.caller.key_id, key, digest, answer)
