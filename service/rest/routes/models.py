"""What is served: the bundle, its licence, its embedding space and how far its error rates are measured."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bundle.calibration import Calibration
from bundle.manifest import Manifest
from service.rest.convert import Json, told
from service.rest.exchange import exchange_of
from service.rest.openapi import refusals
from service.rest.responses import Answer
from service.rest.routing import ANY, add
from service.rest.schemas import ModelsAnswer


class ModelRoutes:
    """`/v1/models`, for everyone with a key."""

    def __init__(self, manifest: Manifest, backend: str) -> None:
        self._told = model_json(manifest, backend)

    def add_to(self, router: APIRouter) -> None:
        """Adds the route."""
        add(
            router, "GET", "/v1/models", self.list, scope=ANY, name="list_models",
            response_model=ModelsAnswer, responses=refusals(401), tags=["models"],
        )  # fmt: skip

    async def list(self, request: Request) -> Response:
        """The bundle that answers, and its licence."""
        return Answer(told(exchange_of(request).request_id, {"models": [self._told]}))


def model_json(manifest: Manifest, backend: str) -> Json:
    """A bundle as its users need to know it."""
    return {
        "model_id": manifest.model_id,
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created.isoformat(),
        "licence": {"id": manifest.licence.id, "text": manifest.licence.text},
        "backend": backend,
        "embedding_space": manifest.embedding_space,
        "dimension": manifest.embedder.dimension,
        "detector": manifest.detector.model_dump(mode="json"),
        "embedder": manifest.embedder.model_dump(mode="json"),
        "variants": [
            variant.model_dump(mode="json", exclude={"derived_from"}) for variant in manifest.variants
        ],
        "calibration": _calibration_json(manifest.calibration),
        "metrics": dict(manifest.metrics),
    }


def _calibration_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "dataset": calibration.dataset,
        "people": calibration.people,
        "pictures": calibration.pictures,
        "comparisons": calibration.curves[0].comparisons,
        "templates": [curve.templates for curve in calibration.curves],
        "floor": calibration.floor,
    }
