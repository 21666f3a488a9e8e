"""What the verbs answer: frozen values whose fields are those of the API's answers, for both doors alike.

A field that a caller relies on is added here and translated in both doors, or in none; none is ever renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.gallery.snapshot import Snapshot
from service.recognition.decision import Verdict
from service.recognition.faces import Box, ImageSize, Points
from service.storage.records import Gallery, Person

Reason = Literal[
    "invalid_image",
    "no_face",
    "multiple_faces",
    "face_too_small",
    "low_quality",
    "extreme_pose",
    "duplicate",
    "identity_conflict",
]


@dataclass(frozen=True, slots=True)
class GalleryState:
    """The gallery as it was searched or left: `size` counts persons, `templates` faces."""

    id: str
    size: int
    revision: int
    templates: int


@dataclass(frozen=True, slots=True)
class Match:
    """A person, the face of theirs that was most similar, and the cosine similarity."""

    person: Person
    face_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face. `quality`: name → score in 0–1, `overall` first."""

    box: Box
    landmarks: Points
    score: float
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFace:
    """One face with its vector: float32 (d,), of unit length."""

    box: Box
    landmarks: Points
    score: float
    quality: Mapping[str, float]
    embedding: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DetectResult:
    """Faces, largest first, without vectors."""

    image: ImageSize
    model_id: str
    timings_ms: Mapping[str, float]
    faces: tuple[DetectedFace, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmbedResult:
    """Faces, largest first, each with its vector of `embedding_space`."""

    image: ImageSize
    model_id: str
    embedding_space: str
    timings_ms: Mapping[str, float]
    faces: tuple[EmbeddedFace, ...]


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """Whether two are one. `fmr`: of this comparison (with a person: with the best of their templates)."""

    decision: Verdict
    similarity: float
    threshold: float
    fmr: float
    extrapolated: bool
    model_id: str
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class IdentifiedFace:
    """One searched face. `matches` passed the threshold; `candidates` are the best others, None unless asked for."""

    box: Box
    landmarks: Points
    score: float
    quality: Mapping[str, float]
    decision: Verdict
    matches: tuple[Match, ...]
    candidates: tuple[Match, ...] | None


@dataclass(frozen=True, slots=True)
class IdentifyResult:
    """Who is in a picture. `decision`, `person` and `similarity` (the best, matched or not) are the largest face's."""

    image: ImageSize
    gallery: GalleryState
    model_id: str
    fpir: float | None
    fmr: float | None
    threshold: float | None
    extrapolated: bool
    timings_ms: Mapping[str, float]
    decision: Verdict
    person: Person | None
    similarity: float | None
    faces: tuple[IdentifiedFace, ...]


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face that was enrolled from picture `index` of the call; `id` is new."""

    id: str
    index: int
    box: Box
    score: float
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why picture `index` of the call was not enrolled."""

    index: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class EnrollResult:
    """What an enrolment did: at least one face."""

    gallery: GalleryState
    person: Person
    faces: tuple[EnrolledFace, ...]
    rejected: tuple[Rejected, ...]


def state_of(gallery: Snapshot | Gallery) -> GalleryState:
    """What an answer says of a gallery that was searched or written."""
    return GalleryState(gallery.id, gallery.size, gallery.revision, gallery.templates)
