"""A bundle stands under the strictest terms of what it was made from, and nothing widens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bundle.folder import Bundle
from bundle.manifest import Licence
from tests.training.untrained import EMBEDDER, FACES, SCENES
from training.embedder.config import Distillation
from training.embedder.records import REFERENCE
from training.export.checkpoints import Trained
from training.export.taken_over import TakenOver, take_over
from training.licence import licence, taught_by_reference, terms, undrawn
from training.loop.records import AnyRecord, TeacherRecord, learnt_from

FREE = "licence: commercial; ours"
PEOPLE = FACES.model_copy(update={"name": "friends", "terms": FREE})
TEACHER = TeacherRecord(name="elder.onnx", sha256="2d", terms=FREE)
PHOTOS = SCENES.model_copy(update={"name": "doors", "terms": FREE})
NOBODY_KNOWS = learnt_from({"step": 40}, Path())


def embedder(records: Sequence[AnyRecord], distilled: bool = False) -> Trained[Any, Any]:
    config = EMBEDDER.model_copy(update={"distillation": Distillation(weight=float(distilled))})
    return Trained(nn.Identity(), config, 40, records=tuple(records))


@pytest.mark.parametrize(
    ("records", "distilled", "by_reference"),
    [
        ([FACES, TEACHER], True, False),
        ([FACES, TEACHER.model_copy(update={"sha256": REFERENCE})], False, True),
        (NOBODY_KNOWS, True, True),
        (NOBODY_KNOWS, False, False),
        ([*NOBODY_KNOWS, FACES, TEACHER], True, True),
    ],
)
def test_the_reference_embedder_s_people_are_told_of_where_it_taught(
    records: Sequence[AnyRecord], distilled: bool, by_reference: bool
) -> None:
    of = embedder(records, distilled)
    assert taught_by_reference(of) is by_reference
    told = licence(False, {"faces": "research-only"}, of)
    assert ("MS1M" in told.text) is by_reference


def people(folder: Path) -> Path:
    """A data sets' folder of people who allow everything."""
    (folder / "faces").mkdir()
    (folder / "faces" / "TERMS").write_text(FREE)
    return folder


def taken_over(published: Bundle, id: Any, *records: AnyRecord) -> TakenOver:
    """The published detector as if its bundle had that licence, and it these records."""
    manifest = published.manifest.model_copy(update={"licence": Licence(id=id, text="…")})
    of = take_over(published.path)
    return replace(of, bundle=Bundle(published.path, manifest), records=records)


@pytest.mark.parametrize(
    ("id", "records", "strict"),
    [
        ("commercial", [PHOTOS], []),
        ("research-only", [PHOTOS], ["the detector's bundle synthetic@"]),
        ("commercial", [PHOTOS.model_copy(update={"terms": "ask first"})], ["the detector's doors"]),
        (
            "commercial",
            [PHOTOS.model_copy(update={"labels": "pseudo, by a"})],
            ["the dense teacher of doors"],
        ),
        ("commercial", NOBODY_KNOWS, ["the detector's not recorded"]),
    ],
)
def test_a_detector_is_taken_over_with_its_bundle_s_licence_and_never_under_a_wider_one(
    published: Bundle, tmp_path: Path, id: str, records: Sequence[AnyRecord], strict: list[str]
) -> None:
    told = terms(people(tmp_path), False, embedder([PEOPLE]), taken_over(published, id, *records))
    found = [name for name, of in told.items() if of != "commercial"]
    assert len(found) == len(strict)
    assert all(name.startswith(of) for name, of in zip(found, strict, strict=True))
    assert licence(False, told, embedder([PEOPLE])).id == ("research-only" if strict else "commercial")


def test_drawn_people_do_not_widen_the_licence_of_a_detector_s_bundle(
    published: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "drawn.json").touch()
    detector = taken_over(published, "research-only", SCENES)
    assert undrawn(embedder([FACES]), detector) == []
    assert "research-only" in terms(tmp_path, True, embedder([FACES]), detector).values()


def test_a_detector_that_learnt_from_photographs_is_not_drawn(published: Bundle) -> None:
    (told,) = undrawn(embedder([FACES]), taken_over(published, "commercial", SCENES, PHOTOS))
    assert told.startswith("the detector learnt from more than drawn pictures (doors: 14 pictures")
