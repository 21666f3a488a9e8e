"""The one table that turns a kind of failure into a gRPC status, and the trailing metadata that tells the rest.

Rule: an answer holds the error's own message and details, never the text of an exception that is not ours.
"""

from __future__ import annotations

import json
import math
from typing import Final

from grpc import StatusCode

from service import errors
from service.errors import FacetError

# A kind is answered with the status of its nearest listed ancestor.
STATUSES: Final[dict[type[FacetError], StatusCode]] = {
    errors.MalformedBody: StatusCode.INVALID_ARGUMENT,
    errors.MissingImage: StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedMedia: StatusCode.INVALID_ARGUMENT,
    errors.InvalidImage: StatusCode.INVALID_ARGUMENT,
    errors.TooLarge: StatusCode.INVALID_ARGUMENT,  # not RESOURCE_EXHAUSTED, which clients take for "try again"
    errors.InvalidParameter: StatusCode.INVALID_ARGUMENT,
    errors.NoFace: StatusCode.INVALID_ARGUMENT,
    errors.NothingAccepted: StatusCode.INVALID_ARGUMENT,
    errors.FpirUnsupported: StatusCode.OUT_OF_RANGE,  # the same rate may be carried by a smaller gallery
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.Conflict: StatusCode.ALREADY_EXISTS,
    errors.EmbeddingSpaceMismatch: StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.Forbidden: StatusCode.PERMISSION_DENIED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.NotReady: StatusCode.UNAVAILABLE,
    errors.IndexUnavailable: StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: StatusCode.CANCELLED,
    errors.Internal: StatusCode.INTERNAL,
    errors.FacetError: StatusCode.INTERNAL,
}
# Trailing metadata as a whole may hold 8 KiB before clients refuse the answer.
MAX_DETAILS: Final = 4096

Trailers = tuple[tuple[str, str], ...]


def status_of(error: FacetError) -> StatusCode:
    """The status of a kind of failure."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def trailers_of(error: FacetError, request_id: str) -> Trailers:
    """The trailing metadata that tells `error`: the proto's head comment lists its keys."""
    trailers = [
        ("facet-error-code", error.code),
        ("facet-error-details", _details(error.details)),
        ("facet-retryable", "true" if error.retryable else "false"),
        ("x-request-id", request_id),
    ]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        trailers.append(("retry-after-ms", str(math.ceil(retry_after_s * 1000))))
    return tuple(trailers)


def _details(details: dict[str, object]) -> str:
    """JSON in ASCII, which is all that text metadata may hold."""
    told = json.dumps(details, ensure_ascii=True, separators=(",", ":"))
    return told if len(told) <= MAX_DETAILS else '{"truncated":true}'
