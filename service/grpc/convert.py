"""The core's values as messages: shapes only, nothing computed.

Rule: a field has the name and the meaning that it has in the REST door's JSON; a test asks both doors and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from service.errors import MissingImage
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.recognition.enrolment import Replay
from service.recognition.faces import Box, ImageSize
from service.recognition.results import (
    DetectedFace,
    DetectResult,
    EmbeddedFace,
    EmbedResult,
    EnrollResult,
    GalleryState,
    IdentifiedFace,
    IdentifyResult,
    Match,
    VerifyResult,
)
from service.storage.records import Person


def picture(request: Message, field: str) -> bytes:
    """The picture of a field. Raises `MissingImage` when it is absent or has 0 bytes."""
    content: bytes = getattr(request, field)
    if not content:
        raise MissingImage(f"no picture in {field}", image=field)
    return content


def detect_response(request_id: str, found: DetectResult) -> pb.DetectResponse:
    """What was found."""
    return pb.DetectResponse(
        request_id=request_id,
        image=_size(found.image),
        model_id=found.model_id,
        timings_ms=found.timings_ms,
        faces=[pb.DetectedFace(**_face(face)) for face in found.faces],
    )


def embed_response(request_id: str, found: EmbedResult) -> pb.EmbedResponse:
    """What was found, with vectors."""
    return pb.EmbedResponse(
        request_id=request_id,
        image=_size(found.image),
        model_id=found.model_id,
        timings_ms=found.timings_ms,
        embedding_space=found.embedding_space,
        faces=[pb.EmbeddedFace(**_face(face), embedding=face.embedding.tolist()) for face in found.faces],
    )


def verify_response(request_id: str, verified: VerifyResult) -> pb.VerifyResponse:
    """What was compared."""
    return pb.VerifyResponse(
        request_id=request_id,
        model_id=verified.model_id,
        timings_ms=verified.timings_ms,
        decision=verified.decision,
        similarity=verified.similarity,
        threshold=verified.threshold,
        fmr=verified.fmr,
        extrapolated=verified.extrapolated,
    )


def identify_response(request_id: str, identified: IdentifyResult) -> pb.IdentifyResponse:
    """Who was found; a number that is None stays absent."""
    return pb.IdentifyResponse(
        request_id=request_id,
        image=_size(identified.image),
        gallery=_gallery(identified.gallery),
        model_id=identified.model_id,
        timings_ms=identified.timings_ms,
        fpir=identified.fpir,
        fmr=identified.fmr,
        threshold=identified.threshold,
        extrapolated=identified.extrapolated,
        decision=identified.decision,
        person=None if identified.person is None else _person(identified.person),
        similarity=identified.similarity,
        faces=[_identified(face) for face in identified.faces],
    )


def enroll_response(request_id: str, enrolled: EnrollResult | Replay) -> pb.EnrollResponse:
    """What was enrolled, or the stored answer when the request was repeated."""
    if isinstance(enrolled, Replay):
        answer = ParseDict(dict(enrolled.answer), pb.EnrollResponse())
    else:
        answer = _enrolled(enrolled)
    answer.request_id = request_id
    return answer


def enroll_answer(enrolled: EnrollResult) -> Mapping[str, Any]:
    """The answer to be stored for a repetition: the message as JSON, without the request's id."""
    stored: dict[str, Any] = MessageToDict(_enrolled(enrolled), preserving_proto_field_name=True)
    return stored


def _enrolled(enrolled: EnrollResult) -> pb.EnrollResponse:
    return pb.EnrollResponse(
        gallery=_gallery(enrolled.gallery),
        person=_person(enrolled.person),
        faces=[
            pb.EnrolledFace(
                id=face.id, index=face.index, box=_box(face.box), score=face.score, quality=face.quality
            )
            for face in enrolled.faces
        ],
        rejected=[pb.Rejected(index=one.index, reason=one.reason) for one in enrolled.rejected],
    )


def _identified(face: IdentifiedFace) -> pb.IdentifiedFace:
    return pb.IdentifiedFace(
        **_face(face),
        decision=face.decision,
        matches=[_match(match) for match in face.matches],
        candidates=[_match(match) for match in face.candidates or ()],
    )


def _match(match: Match) -> pb.Match:
    return pb.Match(person=_person(match.person), face_id=match.face_id, similarity=match.similarity)


def _face(face: DetectedFace | EmbeddedFace | IdentifiedFace) -> dict[str, Any]:
    return {
        "box": _box(face.box),
        "landmarks": [pb.Point(x=x, y=y) for x, y in face.landmarks],
        "score": face.score,
        "quality": face.quality,
    }


def _box(box: Box) -> pb.Box:
    return pb.Box(x=box.x, y=box.y, width=box.width, height=box.height)


def _size(image: ImageSize) -> pb.ImageSize:
    return pb.ImageSize(width=image.width, height=image.height)


def _gallery(gallery: GalleryState) -> pb.Gallery:
    return pb.Gallery(
        id=gallery.id, size=gallery.size, revision=gallery.revision, templates=gallery.templates
    )


def _person(person: Person) -> pb.Person:
    metadata = Struct()
    metadata.update(dict(person.metadata))
    return pb.Person(id=person.id, name=person.name, external_id=person.external_id, metadata=metadata)
