"""Every kind of failure has a status, and is told in the one envelope."""

from __future__ import annotations

import inspect

import orjson
import pytest

from service import errors
from service.errors import FacetError
from service.rest.errors import STATUSES, refusal, status_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FacetError)]
# A defect is told by `Internal`; a failed start never reaches a door.
PLAIN = {FacetError, errors.StartFailed}


def made(kind: type[FacetError]) -> FacetError:
    """One of a kind, whatever its constructor insists on."""
    needed = {"retry_after_s": 2.4, "write_committed": True}
    asks = inspect.signature(kind).parameters
    facts = {name: value for name, value in needed.items() if name in asks}
    return kind(**facts) if asks["message"].default is not inspect.Parameter.empty else kind("why", **facts)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in PLAIN], ids=lambda kind: kind.__name__
)
def test_each_kind_has_its_own_row_in_the_table(kind: type[FacetError]) -> None:
    named = next(parent for parent in kind.__mro__ if parent in STATUSES)

    assert named is not FacetError
    assert status_of(made(kind)) in {400, 401, 403, 404, 409, 413, 415, 422, 429, 499, 500, 503, 504}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_envelope_has_the_four_fields_and_the_request(kind: type[FacetError]) -> None:
    error = made(kind)
    told = orjson.loads(refusal(error, "r-1").body)

    assert told == {
        "error": {
            "code": kind.code,
            "message": error.message,
            "details": error.details,
            "retryable": kind.retryable,
        },
        "request_id": "r-1",
    }


def test_busy_and_not_ready_say_when_to_come_back() -> None:
    assert refusal(errors.Overloaded(retry_after_s=2.4), "r").headers["retry-after"] == "3"
    assert refusal(errors.NotReady(retry_after_s=0.01), "r").headers["retry-after"] == "1"
    assert "retry-after" not in refusal(errors.DeadlineExceeded(), "r").headers
