"""Galleries: who is searched together. Managing them needs the scope `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.recognition.gallery_sync import GallerySync
from service.rest.convert import created_json, gallery_json, page_json, told
from service.rest.exchange import exchange_of
from service.rest.idempotency import idempotency_of
from service.rest.openapi import IDEMPOTENT, example, refusals
from service.rest.parameters import GalleryChanges, NewGallery, PageQuery
from service.rest.responses import Answer, no_content
from service.rest.routing import add
from service.rest.schemas import GalleriesAnswer, GalleryAnswer

ONE = "/v1/galleries/{gallery}"


class GalleryRoutes:
    """`/v1/galleries`"""

    def __init__(self, sync: GallerySync) -> None:
        self._sync = sync

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router, "GET", "/v1/galleries", self.list, scope="admin", name="list_galleries",
            response_model=GalleriesAnswer, responses=refusals(401, 403, 422), tags=["galleries"],
        )  # fmt: skip
        add(
            router, "POST", "/v1/galleries", self.create, scope="admin", name="create_gallery", status_code=201,
            response_model=GalleryAnswer, responses=refusals(400, 401, 403, 409, 413, 422), tags=["galleries"],
            extra=IDEMPOTENT | example({"id": "visitors", "name": "Visitors", "metadata": {"building": "north"}}),
        )  # fmt: skip
        add(
            router, "GET", ONE, self.get, scope="admin", name="get_gallery",
            response_model=GalleryAnswer, responses=refusals(401, 403, 404), tags=["galleries"],
        )  # fmt: skip
        add(
            router, "PATCH", ONE, self.change, scope="admin", name="change_gallery",
            response_model=GalleryAnswer, responses=refusals(400, 401, 403, 404, 413, 422), tags=["galleries"],
            extra=example({"name": "Staff, north building"}),
        )  # fmt: skip
        add(
            router, "DELETE", ONE, self.delete, scope="admin", name="delete_gallery", status_code=204,
            responses=refusals(401, 403, 404, 503), tags=["galleries"],
        )  # fmt: skip

    async def list(self, request: Request, page: Annotated[PageQuery, Query()]) -> Response:
        """The galleries, a page at a time."""
        found = await self._sync.list_galleries(cursor=page.cursor, limit=page.limit)
        return Answer(page_json(exchange_of(request).request_id, "galleries", found, gallery_json))

    async def create(self, request: Request, new: NewGallery) -> Response:
        """A new, empty gallery."""
        once = idempotency_of(request, new, gallery_json)
        made = await self._sync.create_gallery(new.id, name=new.name, metadata=new.metadata, idempotency=once)
        return Answer(created_json(exchange_of(request).request_id, made, gallery_json), 201)

    async def get(self, request: Request, gallery: str) -> Response:
        """One gallery."""
        return Answer(
            told(exchange_of(request).request_id, gallery_json(await self._sync.get_gallery(gallery)))
        )

    async def change(self, request: Request, gallery: str, changes: GalleryChanges) -> Response:
        """Sets what is given; null clears."""
        changed = await self._sync.update_gallery(gallery, changes.model_dump(exclude_unset=True))
        return Answer(told(exchange_of(request).request_id, gallery_json(changed)))

    async def delete(self, gallery: str) -> Response:
        """Deletes the gallery with everyone in it; nobody in it is found once this has been answered."""
        await self._sync.delete_gallery(gallery)
        return no_content()
