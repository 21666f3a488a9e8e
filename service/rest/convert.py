"""The core's values as the JSON of the REST door: shapes only, nothing is decided or left out here.

Rule: a field that stands here stands in `schemas.py` under the same name; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.recognition.enrolment import Replay
from service.recognition.faces import Box, ImageSize
from service.recognition.results import (
    DetectedFace,
    DetectResult,
    EmbeddedFace,
    EmbedResult,
    EnrolledFace,
    EnrollResult,
    GalleryState,
    IdentifiedFace,
    IdentifyResult,
    Match,
    VerifyResult,
)
from service.storage import records
from service.storage.records import ApiKey, Gallery, Page, Person

Json = dict[str, Any]

# The verbs' answers.


def detect_json(result: DetectResult) -> Json:
    """The answer of detect."""
    return {
        "image": size_json(result.image),
        "model_id": result.model_id,
        "timings_ms": result.timings_ms,
        "faces": [face_json(face) for face in result.faces],
    }


def embed_json(result: EmbedResult) -> Json:
    """The answer of embed."""
    return {
        "image": size_json(result.image),
        "model_id": result.model_id,
        "embedding_space": result.embedding_space,
        "timings_ms": result.timings_ms,
        "faces": [{**face_json(face), "embedding": face.embedding} for face in result.faces],
    }


def verify_json(result: VerifyResult) -> Json:
    """The answer of verify."""
    return {
        "decision": result.decision,
        "similarity": result.similarity,
        "threshold": result.threshold,
        "fmr": result.fmr,
        "extrapolated": result.extrapolated,
        "model_id": result.model_id,
        "timings_ms": result.timings_ms,
    }


def identify_json(result: IdentifyResult) -> Json:
    """The answer of identify."""
    return {
        "image": size_json(result.image),
        "gallery": state_json(result.gallery),
        "model_id": result.model_id,
        "fpir": result.fpir,
        "fmr": result.fmr,
        "threshold": result.threshold,
        "extrapolated": result.extrapolated,
        "timings_ms": result.timings_ms,
        "decision": result.decision,
        "person": None if result.person is None else who_json(result.person),
        "similarity": result.similarity,
        "faces": [identified_json(face) for face in result.faces],
    }


def enroll_json(result: EnrollResult) -> Json:
    """The answer of enroll."""
    return {
        "gallery": state_json(result.gallery),
        "person": who_json(result.person),
        "faces": [enrolled_json(face) for face in result.faces],
        "rejected": [{"index": one.index, "reason": one.reason} for one in result.rejected],
    }


# Their parts.


def size_json(size: ImageSize) -> Json:
    """A picture's size, pixels."""
    return {"width": size.width, "height": size.height}


def box_json(box: Box) -> Json:
    """A box, pixels."""
    return {"x": box.x, "y": box.y, "width": box.width, "height": box.height}


def face_json(face: DetectedFace | EmbeddedFace | IdentifiedFace) -> Json:
    """A face as it was found."""
    return {
        "box": box_json(face.box),
        "landmarks": face.landmarks,
        "score": face.score,
        "quality": face.quality,
    }


def identified_json(face: IdentifiedFace) -> Json:
    """A face that was searched; `candidates` only where they were asked for."""
    matches = [match_json(match) for match in face.matches]
    told: Json = {**face_json(face), "decision": face.decision, "matches": matches}
    if face.candidates is not None:
        told["candidates"] = [match_json(match) for match in face.candidates]
    return told


def enrolled_json(face: EnrolledFace) -> Json:
    """A face that was enrolled from one of the pictures."""
    return {
        "id": face.id,
        "index": face.index,
        "box": box_json(face.box),
        "score": face.score,
        "quality": dict(face.quality),
    }


def match_json(match: Match) -> Json:
    """A person who was found."""
    return {"person": who_json(match.person), "face_id": match.face_id, "similarity": match.similarity}


def who_json(person: Person) -> Json:
    """A person as a verb tells them."""
    return {
        "id": person.id,
        "name": person.name,
        "external_id": person.external_id,
        "metadata": dict(person.metadata),
    }


def state_json(gallery: GalleryState) -> Json:
    """The gallery as it was searched or left."""
    return {
        "id": gallery.id,
        "size": gallery.size,
        "revision": gallery.revision,
        "templates": gallery.templates,
    }


# The nouns.


def gallery_json(gallery: Gallery) -> Json:
    """A gallery as its own resource."""
    return {
        "id": gallery.id,
        "name": gallery.name,
        "metadata": dict(gallery.metadata),
        "size": gallery.size,
        "templates": gallery.templates,
        "revision": gallery.revision,
        "created": gallery.created.isoformat(),
        "updated": gallery.updated.isoformat(),
    }


def person_json(person: Person) -> Json:
    """A person as their own resource."""
    return {
        "id": person.id,
        "gallery": person.gallery_id,
        "name": person.name,
        "external_id": person.external_id,
        "metadata": dict(person.metadata),
        "templates": person.templates,
        "created": person.created.isoformat(),
        "updated": person.updated.isoformat(),
    }


def stored_face_json(face: records.Face) -> Json:
    """An enrolled face as its own resource; its vector is never told."""
    left, top, right, bottom = face.box
    return {
        "id": face.id,
        "person": face.person_id,
        "box": {"x": left, "y": top, "width": right - left, "height": bottom - top},
        "score": face.score,
        "quality": dict(face.quality),
        "created": face.created.isoformat(),
    }


def api_key_json(key: ApiKey) -> Json:
    """A key without its secret."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created": key.created.isoformat(),
        "last_used": key.last_used.isoformat() if key.last_used else None,
        "revoked": key.revoked.isoformat() if key.revoked else None,
    }


def page_json(request_id: str, name: str, page: Page[Any], item: Any) -> Json:
    """A page of a list: its items under `name`, and where to continue."""
    return {
        "request_id": request_id,
        name: [item(each) for each in page.items],
        "next_cursor": page.next_cursor,
    }


def told(request_id: str, answer: Mapping[str, Any]) -> Json:
    """An answer under its request's id."""
    return {"request_id": request_id, **answer}


def created_json(request_id: str, made: Any | Replay, item: Any) -> Json:
    """What a write made, or what it made when it was sent the first time."""
    return told(request_id, made.answer if isinstance(made, Replay) else item(made))
