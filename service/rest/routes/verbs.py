"""The five verbs, each with and without `/v1`: a picture in, an answer out.

Rule: nothing is decided here. A verb reads what was asked, calls the core, and writes down what came back.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.recognition.enroll import Enroller
from service.recognition.recognize import Recognizer
from service.rest.bodies import Asked, read_asked
from service.rest.convert import (
    created_json,
    detect_json,
    embed_json,
    enroll_json,
    identify_json,
    told,
    verify_json,
)
from service.rest.exchange import exchange_of
from service.rest.idempotency import idempotency_of
from service.rest.limits import while_wanted
from service.rest.openapi import IDEMPOTENT, refusals, verb
from service.rest.parameters import (
    DetectParameters,
    EmbedParameters,
    EnrollParameters,
    IdentifyParameters,
    VerbParameters,
    VerifyParameters,
)
from service.rest.responses import Answer
from service.rest.routing import add
from service.rest.schemas import DetectAnswer, EmbedAnswer, EnrollAnswer, IdentifyAnswer, VerifyAnswer

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
PICTURE_REFUSALS = (400, 401, 403, 413, 415, 422, 429, 503, 504)
ALICE = {"image": "alice.jpg"}


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Whom pictures are enrolled as."""

    gallery: str
    person_id: str | None = None
    name: str | None = None
    external_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    force: bool = False


class VerbRoutes:
    """`/v1/detect`, `/v1/embed`, `/v1/verify`, `/v1/enroll`, `/v1/identify`, and the same at the root."""

    def __init__(self, recognizer: Recognizer, enroller: Enroller) -> None:
        self._recognizer = recognizer
        self._enroller = enroller

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        self._add(
            router, self.detect, DetectParameters, DetectAnswer, {"largest": {**ALICE, "faces": "largest"}}
        )
        self._add(router, self.embed, EmbedParameters, EmbedAnswer, {"picture": ALICE})
        self._add(
            router, self.verify, VerifyParameters, VerifyAnswer, required=(), missing=404,
            raw={"person_id": "{person}", "gallery": "staff"},
            examples={
                "two pictures": {"image_a": "alice.jpg", "image_b": "alice-2.jpg"},
                "a picture and a person": {**ALICE, "person_id": "{person}", "gallery": "staff", "fmr": 1e-4},
            },
        )  # fmt: skip
        self._add(
            router, self.identify, IdentifyParameters, IdentifyAnswer, missing=404, raw={"gallery": "staff"},
            examples={
                "who is it": ALICE | {"gallery": "staff"},
                "everybody in the picture": {"image": "group.jpg", "gallery": "staff", "faces": "all", "fpir": 0.001},
            },
        )  # fmt: skip
        self._add(
            router, self.enroll, EnrollParameters, EnrollAnswer, required=("images",), missing=404, status=201,
            examples={
                "a new person": {"images": ["carol.jpg", "carol-2.jpg"], "gallery": "staff", "name": "Carol",
                                 "external_id": "badge-19"},
            },
        )  # fmt: skip

    def _add(
        self,
        router: APIRouter,
        endpoint: Endpoint,
        parameters: type[VerbParameters],
        answer: type[Any],
        examples: dict[str, dict[str, Any]],
        required: tuple[str, ...] = ("image",),
        raw: dict[str, Any] | None = None,
        missing: int | None = None,
        status: int = 200,
    ) -> None:
        name = endpoint.__name__
        described = verb(parameters, required=required, examples=examples, raw=raw)
        if status == 201:
            described["parameters"] += IDEMPOTENT["parameters"]
        refused = refusals(
            *PICTURE_REFUSALS, *((missing,) if missing else ()), *((409,) if status == 201 else ())
        )
        for path, shown in ((f"/v1/{name}", True), (f"/{name}", False)):
            add(
                router, "POST", path, endpoint, scope=name, name=name, status_code=status, response_model=answer,
                responses=refused, extra=described, include_in_schema=shown, tags=["verbs"],
            )  # fmt: skip

    async def detect(self, request: Request) -> Response:
        """Where the faces of a picture are."""
        asked = await read_asked(request, DetectParameters)
        given, exchange = asked.parameters, exchange_of(request)
        work = self._recognizer.detect(
            asked.image, min_score=given.min_score, faces=given.faces, deadline=exchange.deadline
        )
        return Answer(told(exchange.request_id, detect_json(await while_wanted(request, work))))

    async def embed(self, request: Request) -> Response:
        """The faces' vectors, comparable only within one `embedding_space`."""
        asked = await read_asked(request, EmbedParameters)
        given, exchange = asked.parameters, exchange_of(request)
        work = self._recognizer.embed(
            asked.image, min_score=given.min_score, faces=given.faces, deadline=exchange.deadline
        )
        return Answer(told(exchange.request_id, embed_json(await while_wanted(request, work))))

    async def verify(self, request: Request) -> Response:
        """Whether two pictures, or a picture and an enrolled person, show one person."""
        asked = await read_asked(request, VerifyParameters)
        given, exchange = asked.parameters, exchange_of(request)
        work = self._recognizer.verify(
            image_a=asked.pictures.get("image_a"),
            image_b=asked.pictures.get("image_b"),
            image=asked.pictures.get("image"),
            person_id=given.person_id,
            gallery=given.gallery,
            fmr=given.fmr,
            threshold=given.threshold,
            deadline=exchange.deadline,
        )
        return Answer(told(exchange.request_id, verify_json(await while_wanted(request, work))))

    async def identify(self, request: Request) -> Response:
        """Who of a gallery is in a picture, with a stated false positive identification rate."""
        asked = await read_asked(request, IdentifyParameters)
        given, exchange = asked.parameters, exchange_of(request)
        assert exchange.principal is not None
        if given.candidates:
            exchange.principal.require("admin")
        work = self._recognizer.identify(
            asked.image,
            gallery=given.gallery,
            fpir=given.fpir,
            threshold=given.threshold,
            limit=given.limit,
            faces=given.faces,
            candidates=given.candidates,
            deadline=exchange.deadline,
        )
        return Answer(told(exchange.request_id, identify_json(await while_wanted(request, work))))

    async def enroll(self, request: Request) -> Response:
        """Adds the faces of some pictures to a person of a gallery."""
        asked = await read_asked(request, EnrollParameters)
        return await enrolled(request, self._enroller, asked, Enrolment(**dict(asked.parameters)))


async def enrolled(request: Request, enroller: Enroller, asked: Asked[Any], who: Enrolment) -> Response:
    """Enrols the pictures of a request and answers 201."""
    exchange = exchange_of(request)
    once = idempotency_of(request, asked.parameters, enroll_json, asked.many)
    work = enroller.enroll(
        asked.many,
        gallery=who.gallery,
        person_id=who.person_id,
        name=who.name,
        external_id=who.external_id,
        metadata=who.metadata,
        force=who.force,
        idempotency=once,
        deadline=exchange.deadline,
    )
    return Answer(created_json(exchange.request_id, await while_wanted(request, work), enroll_json), 201)
