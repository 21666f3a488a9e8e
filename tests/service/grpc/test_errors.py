"""Every kind of failure has one gRPC status, and its trailing metadata tells the rest within the transport's bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from service import errors
from service.errors import FacetError
from service.grpc.errors import STATUSES, status_of, trailers_of


def kinds(of: type[FacetError] = FacetError) -> Iterator[type[FacetError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


def make(kind: type[FacetError]) -> FacetError:
    if kind is errors.Overloaded:
        return errors.Overloaded(retry_after_s=1.5)
    if kind is errors.IndexUnavailable:
        return errors.IndexUnavailable(write_committed=True)
    if kind in (errors.Cancelled, errors.Internal):
        return kind()  # type: ignore[call-arg]
    return kind("told")


EXPECTED = {
    "malformed_body": StatusCode.INVALID_ARGUMENT,
    "missing_image": StatusCode.INVALID_ARGUMENT,
    "unsupported_media": StatusCode.INVALID_ARGUMENT,
    "invalid_image": StatusCode.INVALID_ARGUMENT,
    "too_large": StatusCode.INVALID_ARGUMENT,
    "invalid_parameter": StatusCode.INVALID_ARGUMENT,
    "no_face": StatusCode.INVALID_ARGUMENT,
    "nothing_accepted": StatusCode.INVALID_ARGUMENT,
    "fpir_unsupported": StatusCode.OUT_OF_RANGE,
    "not_found": StatusCode.NOT_FOUND,
    "gallery_not_found": StatusCode.NOT_FOUND,
    "person_not_found": StatusCode.NOT_FOUND,
    "face_not_found": StatusCode.NOT_FOUND,
    "api_key_not_found": StatusCode.NOT_FOUND,
    "conflict": StatusCode.ALREADY_EXISTS,
    "gallery_exists": StatusCode.ALREADY_EXISTS,
    "external_id_exists": StatusCode.ALREADY_EXISTS,
    "name_conflict": StatusCode.ALREADY_EXISTS,
    "idempotency_conflict": StatusCode.ALREADY_EXISTS,
    "embedding_space_mismatch": StatusCode.FAILED_PRECONDITION,
    "unauthenticated": StatusCode.UNAUTHENTICATED,
    "forbidden": StatusCode.PERMISSION_DENIED,
    "overloaded": StatusCode.RESOURCE_EXHAUSTED,
    "not_ready": StatusCode.UNAVAILABLE,
    "index_unavailable": StatusCode.UNAVAILABLE,
    "deadline_exceeded": StatusCode.DEADLINE_EXCEEDED,
    "cancelled": StatusCode.CANCELLED,
    "internal": StatusCode.INTERNAL,
    "start_failed": StatusCode.INTERNAL,
}


@pytest.mark.parametrize(
    "kind", sorted(set(kinds()), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_every_kind_has_its_status(kind: type[FacetError]) -> None:
    assert status_of(make(kind)) is EXPECTED[kind.code]


def test_the_table_names_only_kinds_that_exist() -> None:
    assert set(STATUSES) <= set(kinds())


def test_the_trailers_tell_code_details_and_when_to_come_back() -> None:
    trailers = dict(trailers_of(errors.Overloaded(retry_after_s=1.5, waiting=3), "id-1"))

    assert trailers["facet-error-code"] == "overloaded"
    assert json.loads(trailers["facet-error-details"]) == {"retry_after_s": 1.5, "waiting": 3}
    assert trailers["facet-retryable"] == "true"
    assert trailers["retry-after-ms"] == "1500"
    assert trailers["x-request-id"] == "id-1"


def test_details_stay_ascii_and_within_the_transports_bounds() -> None:
    told = dict(trailers_of(errors.InvalidParameter("wrong", parameter="größe"), "id"))["facet-error-details"]
    assert told.isascii()
    assert json.loads(told) == {"parameter": "größe"}

    rejected = [{"index": index, "reason": "identity_conflict"} for index in range(1000)]
    told = dict(trailers_of(errors.NothingAccepted("none", rejected=rejected), "id"))["facet-error-details"]
    assert json.loads(told) == {"truncated": True}
