"""What is answered, described: the models of the OpenAPI document.

Rule: answers are written from plain dictionaries, not validated against these on the way out; a test validates every
kind of answer against its model, and an unknown field fails it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Landmarks = Annotated[list[Point], Field(min_length=5, max_length=5)]
Quality = Annotated[dict[str, float], Field(description="Scores in 0–1, among them `overall`.")]
Decision = Literal["match", "no_match", "no_face", "low_quality"]


class Told(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(extra="forbid")


class Answered(Told):
    """A whole answer."""

    request_id: str


class Size(Told):
    """Of the upright picture, in pixels."""

    width: int
    height: int


class Box(Told):
    """Pixels in the upright picture, clipped to it."""

    x: float
    y: float
    width: float
    height: float


class DetectedFace(Told):
    box: Box
    landmarks: Landmarks
    score: float
    quality: Quality


class EmbeddedFace(DetectedFace):
    embedding: Annotated[list[float], Field(description="Unit vector of the embedding space.")]


class PictureAnswer(Answered):
    image: Size
    model_id: str
    timings_ms: dict[str, float]


class DetectAnswer(PictureAnswer):
    faces: list[DetectedFace]


class EmbedAnswer(PictureAnswer):
    embedding_space: str
    faces: list[EmbeddedFace]


class GalleryState(Told):
    """The state of the gallery that was searched or written; `size` counts persons."""

    id: str
    size: int
    revision: int
    templates: int


class PersonTold(Told):
    id: str
    name: str | None
    external_id: str | None
    metadata: dict[str, Any]


class Match(Told):
    person: PersonTold
    face_id: str
    similarity: float


class IdentifiedFace(DetectedFace):
    decision: Decision
    matches: Annotated[list[Match], Field(description="Persons at or above the threshold, best first.")]
    candidates: Annotated[list[Match] | None, Field(description="The best others, when asked for.")] = None


class IdentifyAnswer(PictureAnswer):
    gallery: GalleryState
    fpir: float | None
    fmr: float | None
    threshold: float | None
    extrapolated: bool
    decision: Decision
    person: PersonTold | None
    similarity: float | None
    faces: list[IdentifiedFace]


class VerifyAnswer(Answered):
    decision: Literal["match", "no_match", "low_quality"]
    similarity: float
    threshold: float
    fmr: float
    extrapolated: bool
    model_id: str
    timings_ms: dict[str, float]


class EnrolledFace(Told):
    id: str
    index: Annotated[int, Field(description="Which of the sent pictures.")]
    box: Box
    score: float
    quality: Quality


class Rejected(Told):
    index: int
    reason: Literal[
        "invalid_image",
        "no_face",
        "multiple_faces",
        "face_too_small",
        "low_quality",
        "extreme_pose",
        "duplicate",
        "identity_conflict",
    ]


class EnrollAnswer(Answered):
    gallery: GalleryState
    person: PersonTold
    faces: list[EnrolledFace]
    rejected: list[Rejected]


class GalleryTold(Told):
    id: str
    name: str | None
    metadata: dict[str, Any]
    size: Annotated[int, Field(description="Persons.")]
    templates: Annotated[int, Field(description="Faces.")]
    revision: int
    created: str
    updated: str


class GalleryAnswer(GalleryTold, Answered):
    pass


class GalleriesAnswer(Answered):
    galleries: list[GalleryTold]
    next_cursor: str | None


class PersonResource(PersonTold):
    gallery: str
    templates: int
    created: str
    updated: str


class PersonAnswer(PersonResource, Answered):
    pass


class PersonsAnswer(Answered):
    persons: list[PersonResource]
    next_cursor: str | None


class FaceResource(Told):
    id: str
    person: str
    box: Box
    score: float
    quality: Quality
    created: str


class FacesAnswer(Answered):
    faces: list[FaceResource]
    next_cursor: str | None


class ApiKeyTold(Told):
    id: str
    name: str
    scopes: list[str]
    created: str
    last_used: str | None
    revoked: str | None


class ApiKeysAnswer(Answered):
    api_keys: list[ApiKeyTold]
    next_cursor: str | None


class NewApiKeyAnswer(ApiKeyTold, Answered):
    key: Annotated[str, Field(description="The key itself: shown this once.")]


class LicenceTold(Told):
    id: str
    text: str


class VariantTold(Told):
    file: str
    of: str
    kind: str
    backends: list[str]
    cost: dict[str, float]


class CalibrationTold(Told):
    dataset: str
    people: int
    pictures: int
    comparisons: Annotated[int, Field(description="Impostor comparisons behind the one-template curve.")]
    templates: Annotated[list[int], Field(description="The k of the measured best-of-k curves.")]
    floor: Annotated[float, Field(description="The smallest false match rate that measured pairs carry.")]


class ModelTold(Told):
    model_id: str
    name: str
    version: str
    created: str
    licence: LicenceTold
    backend: str
    embedding_space: str
    dimension: int
    detector: dict[str, Any]
    embedder: dict[str, Any]
    variants: list[VariantTold]
    calibration: CalibrationTold
    metrics: dict[str, Any]


class ModelsAnswer(Answered):
    models: list[ModelTold]


class HealthAnswer(Answered):
    status: Literal["alive", "ready"]


class ErrorTold(Told):
    code: str
    message: str
    details: dict[str, Any]
    retryable: bool


class ErrorAnswer(Answered):
    """The one envelope of every failure."""

    error: ErrorTold
