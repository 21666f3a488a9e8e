"""The verb that writes: the faces of some pictures become a person's templates, or the reason why not.

Every picture is judged alone and answered by its place; what one picture is rejected for never stops another. Nothing
is written before all are judged, and all that is accepted is written in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.errors import InvalidImage, InvalidParameter, MissingImage, NothingAccepted, UnsupportedMedia
from service.recognition.admission import within
from service.recognition.decision import Decider
from service.recognition.faces import Analysis, Face
from service.recognition.gallery_sync import Added, GallerySync, Idempotency, NewFace, PersonRef, Replay
from service.recognition.pipeline import Pipeline, together
from service.recognition.results import EnrolledFace, EnrollResult, Reason, Rejected, state_of
from service.storage.records import Person

MAX_IMAGES = 100
SECOND_FACE = 0.5  # of the largest one's area: a larger second face makes it unclear who is meant

# Pictures of one call that are worked on at once: enough to keep two lanes busy, few enough to leave room for others.
_SIDE_BY_SIDE = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """One picture of the call: the face to enrol, or the reason why not."""

    index: int
    face: Face | None
    digest: str
    reason: Reason | None


class Enroller:
    """Enrolment on one pipeline and its galleries."""

    def __init__(self, pipeline: Pipeline, sync: GallerySync) -> None:
        self._pipeline = pipeline
        self._sync = sync
        self._metrics = pipeline.metrics
        self._decider = Decider(pipeline.manifest.calibration)

    async def enroll(
        self,
        images: Sequence[bytes],
        *,
        gallery: str = "default",
        person_id: str | None = None,
        name: str | None = None,
        external_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        force: bool = False,
        idempotency: Idempotency | None = None,
        deadline: float,
    ) -> EnrollResult | Replay:
        """Enrol the pictures (1–100) as one person, existing or new. `force`: even where somebody else looks like this.

        `idempotency.answer` is given the `EnrollResult`; a call that was answered before gives the stored `Replay`.

        Raises `MissingImage`, `TooLarge`, `InvalidParameter`, `NotFound`, `Conflict`, `NothingAccepted` (with
        `details.rejected`), `NotReady`, `IndexUnavailable`, `Overloaded`, `DeadlineExceeded`, `Internal`.
        """
        self._check(images)
        ref = PersonRef(person_id, external_id, name, metadata)
        with self._pipeline.admission.request():
            async with within(deadline):
                if idempotency is not None:
                    replay = await self._sync.replay(
                        idempotency.principal, idempotency.key, idempotency.digest
                    )
                    if replay is not None:
                        return replay
                person = await self._sync.find_person(gallery, ref)
                judged = await self._judge(images, gallery, person, force, deadline)
            # No deadline from here on: a write that is begun is finished, and its caller told.
            return await self._write(judged, gallery, ref, idempotency)

    def _check(self, images: Sequence[bytes]) -> None:
        if not images:
            raise MissingImage("no picture to enrol")
        if len(images) > MAX_IMAGES:
            raise InvalidParameter(f"at most {MAX_IMAGES} pictures in a call", parameter="images")
        for image in images:  # limits are the call's, before any work; what is inside is each picture's own
            try:
                self._pipeline.inspect(image)
            except (InvalidImage, UnsupportedMedia):
                continue

    async def _judge(
        self, images: Sequence[bytes], gallery: str, person: Person | None, force: bool, deadline: float
    ) -> list[_Judged]:
        known = set(await self._sync.face_digests(gallery, person.id)) if person else set()
        places = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def analyse(index: int, image: bytes) -> _Judged:
            async with places:
                return await self._look(index, image, deadline)

        judged = await together([analyse(index, image) for index, image in enumerate(images)])
        judged = [_unless_known(one, known) for one in judged]
        return judged if force else await self._unless_conflict(judged, gallery, person)

    async def _look(self, index: int, image: bytes, deadline: float) -> _Judged:
        try:
            found = await self._pipeline.faces(image, embed=True, digest=True, deadline=deadline)
        except (InvalidImage, UnsupportedMedia):
            return _Judged(index, None, "", "invalid_image")
        assert found.digest is not None  # asked for
        reason = unfit(found)
        return _Judged(index, found.faces[0] if reason is None else None, found.digest, reason)

    async def _unless_conflict(
        self, judged: list[_Judged], gallery: str, person: Person | None
    ) -> list[_Judged]:
        """Reject faces that match somebody else of the gallery at FPIR 1e-3."""
        fit = [one.face for one in judged if one.face is not None]
        snapshot = self._sync.snapshot(gallery)
        if not fit or not snapshot.templates:
            return judged
        operating = self._decider.conflict(snapshot.histogram)
        probes = np.stack([face.embedding for face in fit if face.embedding is not None])
        # Two, because the best may be the person themselves.
        hits = (await self._pipeline.pool.run(lambda: snapshot.search(probes, 2))).value
        own = person.id if person else None
        taken = iter(
            any(hit.person_id != own and operating.matches(hit.similarity) for hit in of) for of in hits
        )
        return [
            replace(one, face=None, reason="identity_conflict")
            if one.face is not None and next(taken)
            else one
            for one in judged
        ]

    async def _write(
        self, judged: list[_Judged], gallery: str, ref: PersonRef, idempotency: Idempotency | None
    ) -> EnrollResult | Replay:
        fit = [one for one in judged if one.face is not None]
        if not fit:
            raise self._nothing(judged)

        def result(added: Added) -> EnrollResult:
            return _result(added, fit, judged)

        once = None
        if idempotency is not None:
            answer = idempotency.answer
            once = replace(idempotency, answer=lambda added: answer(result(added)))
        added = await self._sync.add_faces(gallery, ref, [_new_face(one) for one in fit], idempotency=once)
        if isinstance(added, Replay):
            return added
        if not added.faces:  # another call enrolled the same pixels meanwhile
            raise self._nothing([replace(one, reason=one.reason or "duplicate") for one in judged])
        enrolled = result(added)
        self._metrics.enrolled.inc(len(enrolled.faces))
        self._count(enrolled.rejected)
        return enrolled

    def _nothing(self, judged: list[_Judged]) -> NothingAccepted:
        rejected = [Rejected(one.index, one.reason) for one in judged if one.reason is not None]
        self._count(rejected)
        told = [{"index": one.index, "reason": one.reason} for one in rejected]
        return NothingAccepted("no picture was accepted", rejected=told)

    def _count(self, rejected: Sequence[Rejected]) -> None:
        for one in rejected:
            self._metrics.rejected.labels(one.reason).inc()


def unfit(found: Analysis) -> Reason | None:
    """Why the largest face of a picture should not become a template; None where it may."""
    if not found.faces:
        return "no_face"
    largest = found.faces[0]
    if len(found.faces) > 1 and found.faces[1].box.area > SECOND_FACE * largest.box.area:
        return "multiple_faces"
    if largest.quality.too_small:
        return "face_too_small"
    if largest.quality.extreme_pose:
        return "extreme_pose"
    return "low_quality" if largest.quality.low else None


def _unless_known(one: _Judged, known: set[str]) -> _Judged:
    """Reject pixels that were seen before, in the gallery or in this call; `known` learns this picture's."""
    if one.face is None:
        return one
    if one.digest in known:
        return replace(one, face=None, reason="duplicate")
    known.add(one.digest)
    return one


def _new_face(one: _Judged) -> NewFace:
    face = one.face
    assert face is not None
    assert face.embedding is not None
    return NewFace(face.embedding, one.digest, face.box.xyxy, face.score, face.quality.scores())


def _result(added: Added, fit: list[_Judged], judged: list[_Judged]) -> EnrollResult:
    """The answer: `added.indices` and `added.duplicates` are places in `fit`."""
    faces = []
    for stored, place in zip(added.faces, added.indices, strict=True):
        face = fit[place].face
        assert face is not None
        faces.append(EnrolledFace(stored.id, fit[place].index, face.box, face.score, face.quality.scores()))
    rejected = [Rejected(one.index, one.reason) for one in judged if one.reason is not None]
    rejected += [Rejected(fit[place].index, "duplicate") for place in added.duplicates]
    ordered = tuple(sorted(rejected, key=lambda one: one.index))
    return EnrollResult(state_of(added.gallery), added.person, tuple(faces), ordered)
