"""What a bundle says of itself: the schema of bundle.json, strict, frozen and versioned.

A field may be added with a default; changing the meaning of one is a new `schema_version`. Unknown fields
are refused, so that no one believes a setting is in force that this version does not know.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bundle.calibration import Calibration, Digest
from bundle.decode import AnchorLayout
from bundle.sentinel import Sentinel

MANIFEST = "bundle.json"

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=1, le=8192)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Licence(_Strict):
    """Under which terms the weights may be used: `id` is for programs, `text` for people."""

    id: Literal["research-only", "commercial"]
    text: str = Field(min_length=1)


class FileEntry(_Strict):
    sha256: Digest
    size: int = Field(ge=0)  # bytes


class DetectorSpec(_Strict):
    """How to run the detector and read its outputs.

    Input: uint8 (n, h, w, 3) RGB, h and w multiples of the coarsest stride. Outputs by role, per anchor of
    `bundle.decode.anchors(w, h, anchors)`: score (n, a) in 0–1, box deltas (n, a, 4), landmark deltas (n,
    a, 10).
    """

    file: FileName = "detector.onnx"
    layout: Literal["retinanet"] = "retinanet"
    anchors: AnchorLayout = AnchorLayout()
    canvases: tuple[tuple[Pixels, Pixels], ...] = Field(
        default=((640, 480), (480, 640)), min_length=1
    )  # (w, h)
    near_scale: float = Field(default=0.25, ge=0, le=0.5)  # of a canvas's small copy (see views.py); 0: none
    min_score: Share = 0.5
    nms_iou: Share = 0.4
    top_k: int = Field(default=400, ge=1)
    input: str = "image"
    outputs: tuple[str, str, str] = ("score", "box", "landmark")

    @model_validator(mode="after")
    def _canvases_fit(self) -> DetectorSpec:
        coarsest = max(self.anchors.strides)
        if any(side % coarsest for canvas in self.canvases for side in canvas):
            raise ValueError(f"canvas sides must be multiples of {coarsest}")
        return self


class EmbedderSpec(_Strict):
    """Input: uint8 (n, crop, crop, 3) RGB aligned crops; output: float32 (n, dimension) unit vectors."""

    file: FileName = "embedder.onnx"
    dimension: int = Field(ge=1, le=4096)
    crop: Literal[112] = 112
    alignment: Literal["arcface-112-v1"] = "arcface-112-v1"
    preprocessing: Literal["rgb-uint8-in-graph"] = "rgb-uint8-in-graph"
    input: str = "image"
    output: str = "embedding"


class Variant(_Strict):
    """Another form of one of the two models, for some backends, with what it cost in accuracy."""

    file: FileName
    of: Literal["detector", "embedder"]
    kind: Slug  # "prelu-rewrite", "int8", "fp16" …
    derived_from: Digest
    backends: tuple[str, ...] = Field(min_length=1)
    cost: dict[str, float]


class Provenance(_Strict):
    """Enough to make the bundle again."""

    datasets: tuple[str, ...]
    commit: str
    configs: dict[str, Any]
    command: str


class Manifest(_Strict):
    """bundle.json. `seal` is the digest of the file itself with the seal's own digits as zeros (see
    folder.py)."""

    schema_version: Literal[1] = 1
    name: Slug
    version: Slug
    created: AwareDatetime
    licence: Licence
    detector: DetectorSpec
    embedder: EmbedderSpec
    files: dict[FileName, FileEntry]
    variants: tuple[Variant, ...] = ()
    calibration: Calibration
    sentinel: Sentinel | None = None  # absent from bundles that are older than it
    metrics: dict[str, float | str | dict[str, Any]]
    provenance: Provenance
    seal: Digest = "0" * 64

    @property
    def model_id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def embedding_space(self) -> str:
        """ "es_" and a digest: equal exactly where vectors may be compared. The detector has no part in
        it."""
        of = self.embedder
        parts = {
            "embedder": self.files[of.file].sha256,
            "preprocessing": of.preprocessing,
            "alignment": of.alignment,
            "dimension": of.dimension,
        }
        return "es_" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        named = [self.detector.file, self.embedder.file, *(of.file for of in self.variants)]
        missing = sorted(set(named) - set(self.files))
        if missing:
            raise ValueError(f"files named but not listed: {', '.join(missing)}")
        if len(set(named)) != len(named):
            raise ValueError("one file is named for two models")
        if MANIFEST in self.files:
            raise ValueError(f"{MANIFEST} cannot list itself")
        return self

    @model_validator(mode="after")
    def _sentinel_fits(self) -> Manifest:
        if self.sentinel and len(self.sentinel.expected) != self.embedder.dimension:
            raise ValueError("the sentinel's answer has another dimension than the embedder")
        return self

    @model_validator(mode="after")
    def _derived_from_these_models(self) -> Manifest:
        digest = {
            "detector": self.files[self.detector.file].sha256,
            "embedder": self.files[self.embedder.file].sha256,
        }
        for variant in self.variants:
            if variant.derived_from != digest[variant.of]:
                raise ValueError(f"{variant.file} is derived from another {variant.of}")
        for role, of in (("detector", self.calibration.detector), ("embedder", self.calibration.embedder)):
            if of != digest[role]:
                raise ValueError(f"the calibration belongs to another {role}")
        return self
