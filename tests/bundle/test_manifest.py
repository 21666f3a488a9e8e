"""The manifest is strict: what it does not know, or what contradicts itself, is refused with its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from bundle.manifest import Manifest
from tests.bundle.small_manifest import FILES, digest, fields

Fields = dict[str, Any]


def whole() -> Fields:
    files = {name: {"sha256": digest(name), "size": len(content)} for name, content in FILES.items()}
    return {**fields(), "files": files}


def parsed(of: Fields) -> Manifest:
    return Manifest.model_validate_json(json.dumps(of))


def variant(**changes: Any) -> Fields:
    plain = {"file": "embedder.int8.onnx", "of": "embedder", "kind": "int8", "backends": ["onnxruntime"]}
    return {**plain, "derived_from": digest("embedder.onnx"), "cost": {"lfw": 0.001}, **changes}


def with_variant(of: Fields, **changes: Any) -> None:
    of["files"]["embedder.int8.onnx"] = {"sha256": "a" * 64, "size": 1}
    of["variants"] = [variant(**changes)]


def test_plain_fields_make_a_manifest_that_survives_json() -> None:
    of = whole()
    with_variant(of)
    manifest = parsed(of)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.detector.canvases == ((640, 480), (480, 640))


def test_a_manifest_that_is_older_than_the_small_copy_has_one() -> None:
    assert parsed(whole()).detector.near_scale == 0.25


def put(*path: str | int, value: Any) -> Callable[[Fields], None]:
    def change(of: Fields) -> None:
        for step in path[:-1]:
            of = of[step]  # type: ignore[index]
        of[path[-1]] = value  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("surprise", value=1), "surprise"),
        (put("detector", "surprise", value=1), "detector.surprise"),
        (put("calibration", "surprise", value=1), "calibration.surprise"),
        (put("schema_version", value=2), "schema_version"),
        (put("name", value="../up"), "name"),
        (put("version", value=""), "version"),
        (put("version", value=1), "version"),
        (put("created", value="2026-01-01T00:00:00"), "created"),
        (put("licence", "id", value="free"), "licence.id"),
        (put("embedder", "dimension", value="128"), "embedder.dimension"),
        (put("embedder", "dimension", value=0), "embedder.dimension"),
        (put("embedder", "alignment", value="other"), "embedder.alignment"),
        (put("detector", "layout", value="other"), "detector.layout"),
        (put("detector", "min_score", value=1.5), "detector.min_score"),
        (put("detector", "canvases", value=[]), "detector.canvases"),
        (put("detector", "canvases", value=[[640, 481]]), "multiples of 32"),
        (put("detector", "near_scale", value=0.6), "detector.near_scale"),
        (put("detector", "near_scale", value=-0.1), "detector.near_scale"),
        (put("detector", "file", value="other.onnx"), "other.onnx"),
        (put("detector", "file", value="a/b.onnx"), "detector.file"),
        (put("detector", "file", value="embedder.onnx"), "one file"),
        (put("files", "bundle.json", value={"sha256": "a" * 64, "size": 1}), "itself"),
        (put("files", "REPORT.md", "sha256", value="abc"), "sha256"),
        (put("files", "REPORT.md", "size", value=-1), "size"),
        (put("calibration", "embedder", value="a" * 64), "another embedder"),
        (put("calibration", "detector", value="a" * 64), "another detector"),
        (lambda of: with_variant(of, derived_from="b" * 64), "another embedder"),
        (lambda of: with_variant(of, file="missing.onnx"), "missing.onnx"),
        (lambda of: with_variant(of, backends=[]), "backends"),
    ],
)
def test_a_wrong_field_is_refused_with_its_place(change: Callable[[Fields], None], complaint: str) -> None:
    of = whole()
    change(of)
    with pytest.raises(ValidationError) as refused:
        parsed(of)
    places = [f"{'.'.join(map(str, each['loc']))} {each['msg']}" for each in refused.value.errors()]
    assert any(complaint in place for place in places), places


@pytest.mark.parametrize("name", sorted(set(fields()) - {"variants"}))
def test_no_field_can_be_left_out(name: str) -> None:
    of = whole()
    del of[name]
    with pytest.raises(ValidationError, match=name):
        parsed(of)


def test_a_manifest_cannot_be_changed() -> None:
    manifest = parsed(whole())
    with pytest.raises(ValidationError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]


def test_the_embedding_space_follows_the_embedder_and_nothing_else() -> None:
    space = parsed(whole()).embedding_space
    assert space.startswith("es_")
    assert len(space) == 3 + 64

    def after(*changes: Callable[[Fields], None]) -> str:
        of = copy.deepcopy(whole())
        for change in changes:
            change(of)
        return parsed(of).embedding_space

    other = "c" * 64
    same = [
        put("name", value="other"),
        put("detector", "min_score", value=0.1),
        put("metrics", value={}),
        with_variant,
    ]
    assert {after(change) for change in same} == {space}
    assert (
        after(
            *(put(*path, "detector", value=other) for path in [("calibration",)]),
            put("files", "detector.onnx", "sha256", value=other),
        )
        == space
    )
    assert (
        after(
            put("calibration", "embedder", value=other), put("files", "embedder.onnx", "sha256", value=other)
        )
        != space
    )
    assert after(put("embedder", "dimension", value=64)) != space
