"""One call and its answer: the id it goes by, when it must be answered, and who asked.

Rule: opened by the gate before the message is read, and reached by the servicer through `current`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from service.auth import Principal

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class Call:
    """`started` and `deadline` are seconds of `time.monotonic`."""

    verb: str  # "Identify"
    request_id: str
    started: float
    deadline: float
    api_key: str | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    principal: Principal | None = None

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def caller(self) -> Principal:
        """Who asked; the gate has authenticated them before anything can ask for this."""
        assert self.principal is not None
        return self.principal


current: ContextVar[Call] = ContextVar("facet_grpc_call")


def open_call(
    verb: str, metadata: Metadata, remaining_s: float | None, timeout_ms: int, max_timeout_ms: int
) -> Call:
    """The call of some metadata; `remaining_s`: the caller's own deadline, None where there is none.

    A request id that is not 1–128 characters of `[A-Za-z0-9._:-]` is replaced, not refused: it is only a label.
    """
    given = {name.lower(): value for name, value in metadata if isinstance(value, str)}
    started = time.monotonic()
    allowed_s = timeout_ms / 1000 if remaining_s is None else min(remaining_s, max_timeout_ms / 1000)
    request_id = given.get("x-request-id", "")
    return Call(
        verb=verb,
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16),
        started=started,
        deadline=started + allowed_s,
        api_key=given.get("x-api-key"),
        authorization=given.get("authorization"),
        idempotency_key=given.get("idempotency-key"),
    )
