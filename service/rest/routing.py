"""Routes that know who may use them: the caller is authenticated and the scope checked before a byte of body is read.

Rule: every route is added through `add` with a scope, or with `ANY` or `PUBLIC` said aloud; one without cannot be made.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.auth import SCOPES, Authenticator
from service.errors import InvalidParameter
from service.rest.errors import parameter_name
from service.rest.exchange import exchange_of
from service.rest.limits import while_wanted

PUBLIC: Final = "public"  # no key is asked for
ANY: Final = "any"  # any valid key
SCOPE_FIELD: Final = "x-facet-scope"  # where a route's scope stands, in the route and in the OpenAPI document
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class GuardedRoute(APIRoute):
    """A route with a scope. One that describes a body but declares none to FastAPI reads body and query itself, with
    `bodies`, and keeps its own time: those take pictures, and are refused before the body while the service is full."""

    authenticator: ClassVar[Authenticator]
    admit: ClassVar[Callable[[], None]]  # raises where a picture would be refused now

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        extra: dict[str, Any] = options.get("openapi_extra") or {}
        self.needed_scope = str(extra.get(SCOPE_FIELD, ""))
        if self.needed_scope not in SCOPES | {PUBLIC, ANY}:
            raise ValueError(f"{path} declares no scope")
        self.describes_body = "requestBody" in extra
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        """FastAPI's handler behind the guard."""
        serve = super().get_route_handler()
        if self.needed_scope == PUBLIC:
            return self._named(serve)
        reads_pictures = self.describes_body and self.body_field is None
        return self._guarded(serve if reads_pictures else self._bounded(serve), reads_pictures=reads_pictures)

    def _named(self, serve: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            exchange_of(request).route = self.name
            return await serve(request)

        return handle

    def _guarded(self, serve: Handler, *, reads_pictures: bool) -> Handler:
        admit = type(self).admit

        async def handle(request: Request) -> Response:
            exchange = exchange_of(request)
            exchange.route = self.name
            principal = await self.authenticator.authenticate(exchange.api_key, exchange.authorization)
            if self.needed_scope != ANY:
                principal.require(self.needed_scope)
            exchange.principal = principal
            if reads_pictures:
                admit()
            return await serve(request)

        return handle

    def _bounded(self, serve: Handler) -> Handler:
        """Reads the body under its limits, so that FastAPI finds it read, and keeps the deadline."""
        known = query_names(self.dependant)
        reads_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            unknown = next((name for name in request.query_params if name not in known), None)
            if unknown is not None:
                raise InvalidParameter("unknown parameter", parameter=parameter_name(unknown))
            if reads_body:
                await request.body()
            # A write that has begun is finished, and its caller told: only reading has a deadline.
            deadline = exchange_of(request).deadline if request.method == "GET" else None
            return await while_wanted(request, serve(request), deadline=deadline)

        return handle


def guarded_by(authenticator: Authenticator, admit: Callable[[], None]) -> type[GuardedRoute]:
    """The route class of one application; `admit` raises `Overloaded` where a picture would be refused now."""
    return type(
        "GuardedRoute", (GuardedRoute,), {"authenticator": authenticator, "admit": staticmethod(admit)}
    )


def add(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    scope: str,
    extra: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """A route under a scope (or `ANY`, `PUBLIC`); `extra` goes into its OpenAPI operation, `options` to FastAPI."""
    described: dict[str, Any] = {SCOPE_FIELD: scope, **(extra or {})}
    if scope != PUBLIC:
        described["security"] = [{"api_key": []}, {"bearer": []}]
    router.add_api_route(path, endpoint, methods=[method], openapi_extra=described, **options)


def query_names(dependant: Dependant) -> frozenset[str]:
    """The query parameters that a route declares, those inside a model included."""
    names: set[str] = set()
    for parameter in dependant.query_params:
        annotation = parameter.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names.update(annotation.model_fields)
        else:
            names.add(parameter.alias)
    return frozenset(names)
