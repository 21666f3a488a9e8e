"""The five verbs: convert in, call the core, convert out.

Rule: nothing is decided here; behaviour that a test wants of both doors belongs below them.
"""

from __future__ import annotations

from typing import Any

from service.bootstrap import Facet
from service.grpc import convert, parameters
from service.grpc.call import current
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.generated.facet.v1 import face_service_pb2_grpc as stubs
from service.grpc.idempotency import idempotency_of
from service.grpc.parameters import MAX_ID, MAX_TEXT


class FaceService(stubs.FaceServiceServicer):
    """`facet.v1.FaceService`. The gate has authenticated the caller and keeps the time; errors leave through it."""

    def __init__(self, facet: Facet) -> None:
        self._recognizer = facet.recognizer
        self._enroller = facet.enroller

    async def Detect(self, request: pb.DetectRequest, context: Any) -> pb.DetectResponse:
        """Where the faces of a picture are."""
        call = current.get()
        found = await self._recognizer.detect(
            convert.picture(request, "image"),
            min_score=parameters.within(request, "min_score", 0, 1),
            faces=parameters.faces(request, "all"),
            deadline=call.deadline,
        )
        return convert.detect_response(call.request_id, found)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        """The faces' vectors."""
        call = current.get()
        found = await self._recognizer.embed(
            convert.picture(request, "image"),
            min_score=parameters.within(request, "min_score", 0, 1),
            faces=parameters.faces(request, "all"),
            deadline=call.deadline,
        )
        return convert.embed_response(call.request_id, found)

    async def Verify(self, request: pb.VerifyRequest, context: Any) -> pb.VerifyResponse:
        """Whether two pictures, or a picture and an enrolled person, show one person."""
        call = current.get()
        verified = await self._recognizer.verify(
            image_a=request.image_a or None,
            image_b=request.image_b or None,
            image=request.image or None,
            person_id=parameters.text(request, "person_id", MAX_ID),
            gallery=parameters.gallery(request),
            fmr=parameters.rate(request, "fmr"),
            threshold=parameters.within(request, "threshold", -1, 1),
            deadline=call.deadline,
        )
        return convert.verify_response(call.request_id, verified)

    async def Enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollResponse:
        """Adds the faces of some pictures to a person."""
        call = current.get()
        enrolled = await self._enroller.enroll(
            list(request.images),
            gallery=parameters.gallery(request),
            person_id=parameters.text(request, "person_id", MAX_ID),
            name=parameters.text(request, "name", MAX_TEXT),
            external_id=parameters.text(request, "external_id", MAX_TEXT),
            metadata=parameters.metadata(request),
            force=request.force,
            idempotency=idempotency_of(call, request, convert.enroll_answer),
            deadline=call.deadline,
        )
        return convert.enroll_response(call.request_id, enrolled)

    async def Identify(self, request: pb.IdentifyRequest, context: Any) -> pb.IdentifyResponse:
        """Who of a gallery is in a picture."""
        call = current.get()
        if request.candidates:
            call.caller.require("admin")
        identified = await self._recognizer.identify(
            convert.picture(request, "image"),
            gallery=parameters.gallery(request),
            fpir=parameters.rate(request, "fpir"),
            threshold=parameters.within(request, "threshold", -1, 1),
            limit=parameters.limit(request),
            faces=parameters.faces(request, "largest"),
            candidates=request.candidates,
            deadline=call.deadline,
        )
        return convert.identify_response(call.request_id, identified)
