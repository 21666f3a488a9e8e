"""The verbs that answer a question: detect, embed, verify, identify.

Parameters are checked before work begins, the gallery is asked when the vectors are there: a person deleted meanwhile
is not found. Results are values whose fields are those of the API's answers; a door only translates them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from service.errors import InvalidParameter, MissingImage, NoFace
from service.gallery.snapshot import Hit, Snapshot
from service.recognition.admission import Admission, within
from service.recognition.decision import Decider, Operating, Verdict
from service.recognition.directory import Directory
from service.recognition.faces import Analysis, Face, Which
from service.recognition.gallery_sync import GallerySync
from service.recognition.pipeline import Pipeline, together
from service.recognition.results import (
    DetectedFace,
    DetectResult,
    EmbeddedFace,
    EmbedResult,
    IdentifiedFace,
    IdentifyResult,
    Match,
    VerifyResult,
    state_of,
)

MAX_LIMIT = 100

# Templates times faces up to which a search is quicker than a hop to another thread and back (0.1 ms).
_SEARCH_INLINE = 2_000
# How often a search is made again because somebody it found was deleted before they could be looked up.
_SEARCHES = 3


class Recognizer:
    """Detect, embed, verify and identify, on one pipeline and its galleries."""

    def __init__(self, pipeline: Pipeline, sync: GallerySync) -> None:
        self._pipeline = pipeline
        self._sync = sync
        self._metrics = pipeline.metrics
        self._directory = Directory(sync)
        self._decider = Decider(pipeline.manifest.calibration)
        self._model_id = pipeline.manifest.model_id

    @property
    def admission(self) -> Admission:
        """How full the service is; `admission.check()` before a body is read."""
        return self._pipeline.admission

    async def detect(
        self, image: bytes, *, min_score: float | None = None, faces: Which = "all", deadline: float
    ) -> DetectResult:
        """Where the faces of a picture are. Raises as `Pipeline.faces` does."""
        found = await self._analyse(image, False, min_score, faces, deadline)
        told = tuple(DetectedFace(of.box, of.landmarks, of.score, of.quality.scores()) for of in found.faces)
        return DetectResult(found.image, self._model_id, found.timings_ms, told)

    async def embed(
        self, image: bytes, *, min_score: float | None = None, faces: Which = "all", deadline: float
    ) -> EmbedResult:
        """The faces' vectors. Raises as `Pipeline.faces` does."""
        found = await self._analyse(image, True, min_score, faces, deadline)
        space = self._pipeline.manifest.embedding_space
        told = tuple(
            EmbeddedFace(of.box, of.landmarks, of.score, of.quality.scores(), _vector(of))
            for of in found.faces
        )
        return EmbedResult(found.image, self._model_id, space, found.timings_ms, told)

    async def verify(
        self,
        *,
        image_a: bytes | None = None,
        image_b: bytes | None = None,
        image: bytes | None = None,
        person_id: str | None = None,
        gallery: str = "default",
        fmr: float | None = None,
        threshold: float | None = None,
        deadline: float,
    ) -> VerifyResult:
        """Whether `image_a` and `image_b`, or `image` and an enrolled person, show one person: the largest faces.

        Raises `InvalidParameter`, `MissingImage`, `NoFace`, `FpirUnsupported`, `NotFound` and as `Pipeline.faces`.
        """
        first, second = _compared(image_a, image_b, image, person_id)
        self._decider.verify(1, fmr, threshold)
        started = monotonic()
        with self.admission.request():
            async with within(deadline):
                if second is not None:
                    analyses = await self._both(first, second, deadline)
                    faces = [
                        _only(found, name)
                        for found, name in zip(analyses, ("image_a", "image_b"), strict=True)
                    ]
                    templates = np.stack([_vector(faces[1])])
                else:
                    assert person_id is not None
                    templates = await self._sync.person_embeddings(gallery, person_id)
                    if not len(templates):
                        raise NoFace("the person has no enrolled face", image="person_id")
                    analyses = [await self._largest(first, deadline)]
                    faces = [_only(analyses[0], "image")]
        operating = self._decider.verify(len(templates), fmr, threshold)
        similarity = _cosine(float((templates @ _vector(faces[0])).max()))
        verdict = _verdict(operating, similarity, low=any(face.quality.low for face in faces))
        self._metrics.decisions.labels("verify", verdict).inc()
        assert operating.threshold is not None  # only a search can be of nobody
        assert operating.fmr is not None
        timings = _summed([found.timings_ms for found in analyses], monotonic() - started)
        return VerifyResult(
            verdict,
            similarity,
            operating.threshold,
            operating.fmr,
            operating.extrapolated,
            self._model_id,
            timings,
        )

    async def identify(
        self,
        image: bytes,
        *,
        gallery: str = "default",
        fpir: float | None = None,
        threshold: float | None = None,
        limit: int = 1,
        faces: Which = "largest",
        candidates: bool = False,
        deadline: float,
    ) -> IdentifyResult:
        """Who of `gallery` is in a picture, at most `limit` (1–100) persons a face.

        Raises `InvalidParameter`, `FpirUnsupported`, `NotFound`, `NotReady`, `IndexUnavailable`; as `Pipeline.faces`.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidParameter(f"limit must be from 1 to {MAX_LIMIT}", parameter="limit")
        self._decider.identify(self._sync.snapshot(gallery).histogram, fpir, threshold)
        started = monotonic()
        with self.admission.request():
            async with within(deadline):
                found = await self._pipeline.faces(image, embed=True, which=faces, deadline=deadline)
                searched = monotonic()
                search = await self._search(gallery, found.faces, limit * 2 if candidates else limit)
        operating = self._decider.identify(search.snapshot.histogram, fpir, threshold)
        spent = {
            **found.timings_ms,
            "search": _ms(monotonic() - searched),
            "total": _ms(monotonic() - started),
        }
        self._metrics.stages({"search": spent["search"]})
        told = tuple(
            _identified(face, matches, operating, limit, candidates)
            for face, matches in zip(found.faces, search.matches, strict=True)
        )
        return self._answer(found, search, operating, told, spent)

    def _answer(
        self,
        found: Analysis,
        search: _Search,
        operating: Operating,
        faces: tuple[IdentifiedFace, ...],
        timings_ms: Mapping[str, float],
    ) -> IdentifyResult:
        first = faces[0] if faces else None
        decision: Verdict = first.decision if first else "no_face"
        for verdict in [face.decision for face in faces] or [decision]:
            self._metrics.decisions.labels("identify", verdict).inc()
        best = search.matches[0][0].similarity if faces and search.matches[0] else None
        return IdentifyResult(
            image=found.image,
            gallery=state_of(search.snapshot),
            model_id=self._model_id,
            fpir=operating.fpir,
            fmr=operating.fmr,
            threshold=operating.threshold,
            extrapolated=operating.extrapolated,
            timings_ms=timings_ms,
            decision=decision,
            person=first.matches[0].person if first and first.matches else None,
            similarity=best,
            faces=faces,
        )

    async def _analyse(
        self, image: bytes, embed: bool, min_score: float | None, faces: Which, deadline: float
    ) -> Analysis:
        with self.admission.request():
            async with within(deadline):
                return await self._pipeline.faces(
                    image, embed=embed, which=faces, min_score=min_score, deadline=deadline
                )

    async def _both(self, first: bytes, second: bytes, deadline: float) -> list[Analysis]:
        for image in (first, second):  # before either is decoded
            self._pipeline.inspect(image)
        return await together([self._largest(first, deadline), self._largest(second, deadline)])

    async def _largest(self, image: bytes, deadline: float) -> Analysis:
        return await self._pipeline.faces(image, embed=True, which="largest", deadline=deadline)

    async def _search(self, gallery: str, faces: Sequence[Face], limit: int) -> _Search:
        """Search, and look up who was found; again on a newer snapshot while somebody is gone by then."""
        for _ in range(_SEARCHES):
            snapshot = self._sync.snapshot(gallery)
            hits = await self._hits(snapshot, faces, limit)
            wanted = {hit.person_id for of in hits for hit in of}
            persons = await self._directory.persons(snapshot, wanted)
            if wanted <= persons.keys():
                break
        matches = [
            tuple(
                Match(persons[hit.person_id], hit.face_id, _cosine(hit.similarity))
                for hit in of
                if hit.person_id in persons
            )
            for of in hits
        ]
        return _Search(snapshot, matches)

    async def _hits(self, snapshot: Snapshot, faces: Sequence[Face], limit: int) -> list[list[Hit]]:
        if not faces:
            return []
        probes = np.stack([_vector(face) for face in faces])
        if snapshot.templates * len(faces) <= _SEARCH_INLINE:
            return snapshot.search(probes, limit)
        return (await self._pipeline.pool.run(lambda: snapshot.search(probes, limit))).value


@dataclass(frozen=True, slots=True)
class _Search:
    """The snapshot that was searched, and the best persons of each face, best first."""

    snapshot: Snapshot
    matches: list[tuple[Match, ...]]


def _identified(
    face: Face, found: tuple[Match, ...], operating: Operating, limit: int, candidates: bool
) -> IdentifiedFace:
    low = face.quality.low
    passed = () if low else tuple(match for match in found if operating.matches(match.similarity))[:limit]
    others = tuple(
        match for match in found if match not in passed and (low or not operating.matches(match.similarity))
    )
    return IdentifiedFace(
        box=face.box,
        landmarks=face.landmarks,
        score=face.score,
        quality=face.quality.scores(),
        decision=_verdict(operating, found[0].similarity if found else -1.0, low=low),
        matches=passed,
        candidates=others[:limit] if candidates else None,
    )


def _verdict(operating: Operating, similarity: float, *, low: bool) -> Verdict:
    if low:
        return "low_quality"
    return "match" if operating.matches(similarity) else "no_match"


def _compared(
    image_a: bytes | None, image_b: bytes | None, image: bytes | None, person_id: str | None
) -> tuple[bytes, bytes | None]:
    """The picture, and the second one or None for a person. Raises `InvalidParameter`, `MissingImage`."""
    pair, single = image_a is not None or image_b is not None, image is not None or person_id is not None
    if pair and single:
        raise InvalidParameter("give image_a and image_b, or image and person_id", parameter="image")
    if pair:
        if not image_a or not image_b:
            raise MissingImage(f"{'image_b' if image_a else 'image_a'} is missing")
        return image_a, image_b
    if not image:
        raise MissingImage("give image_a and image_b, or image and person_id")
    if person_id is None:
        raise InvalidParameter("image needs person_id", parameter="person_id")
    return image, None


def _only(found: Analysis, name: str) -> Face:
    if not found.faces:
        raise NoFace(f"{name} shows no face", image=name)
    return found.faces[0]


def _vector(face: Face) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert face.embedding is not None  # asked for with embed=True
    return face.embedding


def _cosine(similarity: float) -> float:
    """Rounding may leave two equal unit vectors a little above 1."""
    return min(1.0, max(-1.0, similarity))


def _summed(timings: Sequence[Mapping[str, float]], total_s: float) -> dict[str, float]:
    """The longest of each stage: pictures of one request run side by side."""
    stages = {stage: max(of.get(stage, 0.0) for of in timings) for of in timings for stage in of}
    return {**stages, "total": _ms(total_s)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
