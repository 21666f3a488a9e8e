"""What can go wrong, named by kind; a door turns a kind into a status with one table, and nothing below knows statuses.

    FacetError
    ├── MalformedBody           the body's JSON or multipart syntax is broken
    ├── MissingImage            no picture, or one of 0 bytes
    ├── UnsupportedMedia        not JPEG, PNG or WebP
    ├── InvalidImage            a JPEG, PNG or WebP that cannot be decoded whole
    ├── TooLarge                body or picture over the limit
    ├── InvalidParameter        a parameter is unknown, out of range or contradicts another
    ├── NoFace                  verify needs a face in each picture
    ├── NothingAccepted         enrolment rejected every picture
    ├── FpirUnsupported         the calibration cannot carry so small a rate
    ├── NotFound
    │   ├── GalleryNotFound  PersonNotFound  FaceNotFound  ApiKeyNotFound
    ├── Conflict
    │   ├── GalleryExists  ExternalIdExists  NameConflict  IdempotencyConflict
    │   └── EmbeddingSpaceMismatch
    ├── Unauthenticated         no key, or a wrong one
    ├── Forbidden               the key lacks a scope
    ├── Overloaded              refused at the door, come back later
    ├── NotReady                warming up, draining or rebuilding
    ├── IndexUnavailable        the write is committed, the index could not follow
    ├── DeadlineExceeded        the caller's time is over
    ├── Cancelled               the caller left; nobody reads this
    ├── Internal                a defect or a broken model; says nothing about its cause
    └── StartFailed             the process must not start as configured

Messages and details reach clients: never a picture, a vector, a key, a path or a traceback in them.
"""

from __future__ import annotations

from typing import ClassVar


class FacetError(Exception):
    """A failure with a stable `code`; `details` are JSON-able facts; `retryable`: the same call may succeed later."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, object] = details


class MalformedBody(FacetError):
    """The body is not the JSON or multipart that it says it is."""

    code = "malformed_body"


class MissingImage(FacetError):
    """A picture is absent or has 0 bytes."""

    code = "missing_image"


class UnsupportedMedia(FacetError):
    """The bytes are not a JPEG, PNG or WebP picture."""

    code = "unsupported_media"


class InvalidImage(FacetError):
    """The picture is truncated or corrupt."""

    code = "invalid_image"


class TooLarge(FacetError):
    """The body or the picture is over its limit: `TooLarge(message, limit=…)`."""

    code = "too_large"


class InvalidParameter(FacetError):
    """`details.parameter` names it: `InvalidParameter(message, parameter="fpir")`."""

    code = "invalid_parameter"


class NoFace(FacetError):
    """A picture that must show a face shows none; `details.image` names it where there are two."""

    code = "no_face"


class NothingAccepted(FacetError):
    """Every picture of an enrolment was rejected: `details.rejected` = [{"index": int, "reason": str}]."""

    code = "nothing_accepted"


class FpirUnsupported(FacetError):
    """The asked rate is far beyond what the calibration carries; `details.supported` is the smallest rate it does."""

    code = "fpir_unsupported"


class NotFound(FacetError):
    """An id names nothing: raise one of its kinds."""

    code = "not_found"


class GalleryNotFound(NotFound):
    """No gallery has this id."""

    code = "gallery_not_found"


class PersonNotFound(NotFound):
    """No person of this gallery has this id."""

    code = "person_not_found"


class FaceNotFound(NotFound):
    """No face of this person has this id."""

    code = "face_not_found"


class ApiKeyNotFound(NotFound):
    """No key has this id."""

    code = "api_key_not_found"


class Conflict(FacetError):
    """The write contradicts what is stored: raise one of its kinds."""

    code = "conflict"


class GalleryExists(Conflict):
    """A gallery with this id exists."""

    code = "gallery_exists"


class ExternalIdExists(Conflict):
    """Another person of this gallery has this external id."""

    code = "external_id_exists"


class NameConflict(Conflict):
    """The external id belongs to a person of another name."""

    code = "name_conflict"


class IdempotencyConflict(Conflict):
    """The idempotency key was used for another request, or that request is still running."""

    code = "idempotency_conflict"


class EmbeddingSpaceMismatch(Conflict):
    """The gallery was enrolled with another model: its vectors are never compared with this bundle's."""

    code = "embedding_space_mismatch"


class Unauthenticated(FacetError):
    """No key, or one that is unknown or revoked; which of them is not said."""

    code = "unauthenticated"


class Forbidden(FacetError):
    """The key is valid but lacks `details.scope`."""

    code = "forbidden"


class Overloaded(FacetError):
    """Refused before any work was done; `retry_after_s` (also in the details) is when it is worth trying again."""

    code = "overloaded"
    retryable = True

    def __init__(
        self, message: str = "too many requests in flight", *, retry_after_s: float, **facts: object
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **facts)
        self.retry_after_s = retry_after_s


class NotReady(FacetError):
    """Warming up, draining or rebuilding: `details.reason` says which."""

    code = "not_ready"
    retryable = True

    def __init__(self, message: str = "not ready", *, retry_after_s: float = 1.0, **facts: object) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class IndexUnavailable(FacetError):
    """The index could not follow the database; `details.write_committed` says whether the write is safe there."""

    code = "index_unavailable"
    retryable = True

    def __init__(
        self,
        message: str = "the index could not be updated and is being rebuilt",
        *,
        write_committed: bool,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, write_committed=write_committed)
        self.write_committed = write_committed
        self.retry_after_s = retry_after_s


class DeadlineExceeded(FacetError):
    """The request's time was over before its answer was ready."""

    code = "deadline_exceeded"
    retryable = True

    def __init__(
        self, message: str = "the deadline passed before the answer was ready", **facts: object
    ) -> None:
        super().__init__(message, **facts)


class Cancelled(FacetError):
    """The caller left before its answer was ready."""

    code = "cancelled"

    def __init__(self, message: str = "the caller left") -> None:
        super().__init__(message)


class Internal(FacetError):
    """Something is broken here, not in the request; the cause stands in the log, never in the answer."""

    code = "internal"
    retryable = True

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


class StartFailed(FacetError):
    """The process cannot start as it is configured; `message` is one line that says what to do."""

    code = "start_failed"
