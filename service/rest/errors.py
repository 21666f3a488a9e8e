"""The one table that turns a kind of failure into an HTTP status, and the one envelope that every failure is told in.

Rule: an answer holds the error's own message and details, never the text of an exception that is not ours.
"""

from __future__ import annotations

import math
import re
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import errors
from service.errors import FacetError, Internal, InvalidParameter, MalformedBody
from service.rest.exchange import exchange_of
from service.rest.responses import Answer

# A kind is answered with the status of its nearest listed ancestor.
STATUSES: Final[dict[type[FacetError], int]] = {
    errors.MalformedBody: 400,
    errors.MissingImage: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.InvalidImage: 422,
    errors.InvalidParameter: 422,
    errors.NoFace: 422,
    errors.NothingAccepted: 422,
    errors.FpirUnsupported: 422,
    errors.Overloaded: 429,
    errors.NotReady: 503,
    errors.IndexUnavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.Cancelled: 499,  # nobody reads it; it stands in the metrics
    errors.Internal: 500,
    errors.FacetError: 500,
}
RETRY_AFTER: Final = frozenset({429, 503})
# What the router itself refuses, before any code of ours.
ROUTER_CODES: Final[dict[int, tuple[str, str]]] = {
    400: ("malformed_body", "the request cannot be read"),
    404: ("not_found", "nothing is served at this path"),
    405: ("method_not_allowed", "this path does not serve this method"),
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


def status_of(error: FacetError) -> int:
    """The HTTP status of a kind of failure."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def refusal(error: FacetError, request_id: str) -> Response:
    """The answer that tells `error`; 429 and 503 say when it is worth trying again."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if status in RETRY_AFTER:
        headers["retry-after"] = str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return _told(status, error.code, error.message, error.details, error.retryable, request_id, headers)


def internal_error(request_id: str) -> Response:
    """The answer to a defect of ours: it says nothing about the cause."""
    return refusal(Internal(), request_id)


async def refuse_routing(request: Request, error: Exception) -> Response:
    """An unknown path or method, told in the envelope."""
    assert isinstance(error, HTTPException)
    request_id = exchange_of(request).request_id
    if error.status_code not in ROUTER_CODES:
        return internal_error(request_id)
    code, message = ROUTER_CODES[error.status_code]
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return _told(error.status_code, code, message, {}, False, request_id, headers)


async def refuse_validation(request: Request, error: Exception) -> Response:
    """A body or query that FastAPI found wrong, told in the envelope without the value that was given."""
    assert isinstance(error, RequestValidationError)
    return refusal(wrong_parameters(error.errors()), exchange_of(request).request_id)


def wrong_parameters(problems: object) -> FacetError:
    """What pydantic complained about as one error: places and reasons, never the caller's values.

    `problems`: the list of pydantic's error dictionaries, not empty.
    """
    assert isinstance(problems, list | tuple)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return MalformedBody("the body is not valid JSON")
    told = [{"parameter": _place(problem["loc"]), "reason": _reason(problem)} for problem in problems[:16]]
    first = told[0]
    where = f"{first['parameter']}: " if first["parameter"] else ""
    return InvalidParameter(f"{where}{first['reason']}", parameter=first["parameter"], errors=told)


def parameter_name(name: str) -> str:
    """A parameter's name as it may be told: one that does not look like a name may be anything, a picture or a key."""
    return name if _NAME.fullmatch(name) else "unknown"


def _place(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(map(parameter_name, parts))[:64]


def _reason(problem: dict[str, object]) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown parameter"
    return str(problem["msg"]).removeprefix("Value error, ")


def _told(
    status: int,
    code: str,
    message: str,
    details: dict[str, object],
    retryable: bool,
    request_id: str,
    headers: dict[str, str],
) -> Response:
    error = {"code": code, "message": message, "details": details, "retryable": retryable}
    return Answer({"error": error, "request_id": request_id}, status, headers)
