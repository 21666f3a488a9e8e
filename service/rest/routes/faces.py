"""The enrolled faces of a person. Managing them needs the scope `enroll`; their vectors are never told."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.recognition.enroll import Enroller
from service.recognition.gallery_sync import GallerySync
from service.rest.bodies import read_asked
from service.rest.convert import page_json, stored_face_json
from service.rest.exchange import exchange_of
from service.rest.openapi import IDEMPOTENT, refusals, verb
from service.rest.parameters import FacesParameters, PageQuery
from service.rest.responses import Answer, no_content
from service.rest.routes.verbs import Enrolment, enrolled
from service.rest.routing import add
from service.rest.schemas import EnrollAnswer, FacesAnswer

ALL = "/v1/galleries/{gallery}/persons/{person}/faces"


class FaceRoutes:
    """`/v1/galleries/{gallery}/persons/{person}/faces`"""

    def __init__(self, sync: GallerySync, enroller: Enroller) -> None:
        self._sync = sync
        self._enroller = enroller

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router, "GET", ALL, self.list, scope="enroll", name="list_faces",
            response_model=FacesAnswer, responses=refusals(401, 403, 404, 422), tags=["faces"],
        )  # fmt: skip
        described = verb(
            FacesParameters, required=("images",), examples={"form": {"images": ["alice-2.jpg"]}}
        )
        described["parameters"] += IDEMPOTENT["parameters"]
        add(
            router, "POST", ALL, self.create, scope="enroll", name="create_faces", status_code=201,
            response_model=EnrollAnswer, extra=described, tags=["faces"],
            responses=refusals(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504),
        )  # fmt: skip
        add(
            router, "DELETE", ALL + "/{face}", self.delete, scope="enroll", name="delete_face", status_code=204,
            responses=refusals(401, 403, 404, 503), tags=["faces"],
        )  # fmt: skip

    async def list(
        self, request: Request, gallery: str, person: str, page: Annotated[PageQuery, Query()]
    ) -> Response:
        """The person's enrolled faces, a page at a time."""
        found = await self._sync.list_faces(gallery, person, cursor=page.cursor, limit=page.limit)
        return Answer(page_json(exchange_of(request).request_id, "faces", found, stored_face_json))

    async def create(self, request: Request, gallery: str, person: str) -> Response:
        """Enrols pictures of this person, who exists."""
        asked = await read_asked(request, FacesParameters)
        who = Enrolment(gallery=gallery, person_id=person, force=asked.parameters.force)
        return await enrolled(request, self._enroller, asked, who)

    async def delete(self, gallery: str, person: str, face: str) -> Response:
        """Deletes one face; it matches nobody once this has been answered."""
        await self._sync.delete_face(gallery, person, face)
        return no_content()
