"""The REST application: routes, guard, door and error handlers put together around a `Facet`.

Rule: everything that a route needs is handed to it here; nothing is looked up from a global or from `app.state`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from service.bootstrap import Facet
from service.rest.door import Door
from service.rest.errors import refuse_routing, refuse_validation
from service.rest.openapi import DESCRIPTION, SECURITY, TITLE
from service.rest.routes.api_keys import ApiKeyRoutes
from service.rest.routes.documents import DocumentRoutes
from service.rest.routes.faces import FaceRoutes
from service.rest.routes.galleries import GalleryRoutes
from service.rest.routes.health import HealthRoutes
from service.rest.routes.models import ModelRoutes
from service.rest.routes.persons import PersonRoutes
from service.rest.routes.verbs import VerbRoutes
from service.rest.routing import guarded_by

VERSION = "1"  # of this surface: the 1 of /v1


class FacetApp(FastAPI):
    """FastAPI with Facet's own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if not self.openapi_schema:
            document = get_openapi(title=TITLE, version=VERSION, description=DESCRIPTION, routes=self.routes)
            document.setdefault("components", {})["securitySchemes"] = SECURITY
            self.openapi_schema = document
        return self.openapi_schema


def create_app(facet: Facet) -> FastAPI:
    """The ASGI application that serves `facet` over REST; starting and closing `facet` is its owner's."""
    app = FacetApp(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: refuse_routing, RequestValidationError: refuse_validation},
    )
    app.add_middleware(Door, settings=facet.settings, metrics=facet.metrics)
    router = app.router
    router.route_class = guarded_by(facet.authenticator, facet.recognizer.admission.check)
    VerbRoutes(facet.recognizer, facet.enroller).add_to(router)
    GalleryRoutes(facet.sync).add_to(router)
    PersonRoutes(facet.sync).add_to(router)
    FaceRoutes(facet.sync, facet.enroller).add_to(router)
    ApiKeyRoutes(facet.api_keys).add_to(router)
    ModelRoutes(facet.bundle.manifest, facet.backend).add_to(router)
    HealthRoutes(facet).add_to(router)
    DocumentRoutes(app.openapi).add_to(router)
    return app
