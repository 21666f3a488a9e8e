"""Persons of a gallery. Managing them needs the scope `enroll`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.recognition.gallery_sync import GallerySync
from service.rest.convert import created_json, page_json, person_json, told
from service.rest.exchange import exchange_of
from service.rest.idempotency import idempotency_of
from service.rest.openapi import IDEMPOTENT, example, refusals
from service.rest.parameters import NewPerson, PersonChanges, PersonQuery
from service.rest.responses import Answer, no_content
from service.rest.routing import add
from service.rest.schemas import PersonAnswer, PersonsAnswer

ALL = "/v1/galleries/{gallery}/persons"
ONE = "/v1/galleries/{gallery}/persons/{person}"


class PersonRoutes:
    """`/v1/galleries/{gallery}/persons`"""

    def __init__(self, sync: GallerySync) -> None:
        self._sync = sync

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router, "GET", ALL, self.list, scope="enroll", name="list_persons",
            response_model=PersonsAnswer, responses=refusals(401, 403, 404, 422), tags=["persons"],
        )  # fmt: skip
        add(
            router, "POST", ALL, self.create, scope="enroll", name="create_person", status_code=201,
            response_model=PersonAnswer, responses=refusals(400, 401, 403, 404, 409, 413, 422), tags=["persons"],
            extra=IDEMPOTENT | example({"name": "Bob", "external_id": "badge-18", "metadata": {"team": "night"}}),
        )  # fmt: skip
        add(
            router, "GET", ONE, self.get, scope="enroll", name="get_person",
            response_model=PersonAnswer, responses=refusals(401, 403, 404), tags=["persons"],
        )  # fmt: skip
        add(
            router, "PATCH", ONE, self.change, scope="enroll", name="change_person",
            response_model=PersonAnswer, responses=refusals(400, 401, 403, 404, 409, 413, 422), tags=["persons"],
            extra=example({"name": "Alice Example", "metadata": {"team": "day"}}),
        )  # fmt: skip
        add(
            router, "DELETE", ONE, self.delete, scope="enroll", name="delete_person", status_code=204,
            responses=refusals(401, 403, 404, 503), tags=["persons"],
        )  # fmt: skip

    async def list(self, request: Request, gallery: str, page: Annotated[PersonQuery, Query()]) -> Response:
        """The gallery's persons, a page at a time, or the one with an external id."""
        found = await self._sync.list_persons(
            gallery, cursor=page.cursor, limit=page.limit, external_id=page.external_id
        )
        return Answer(page_json(exchange_of(request).request_id, "persons", found, person_json))

    async def create(self, request: Request, gallery: str, new: NewPerson) -> Response:
        """A person without faces; nobody is found before faces are added."""
        once = idempotency_of(request, new, person_json)
        made = await self._sync.create_person(
            gallery, external_id=new.external_id, name=new.name, metadata=new.metadata, idempotency=once
        )
        return Answer(created_json(exchange_of(request).request_id, made, person_json), 201)

    async def get(self, request: Request, gallery: str, person: str) -> Response:
        """One person."""
        found = await self._sync.get_person(gallery, person)
        return Answer(told(exchange_of(request).request_id, person_json(found)))

    async def change(self, request: Request, gallery: str, person: str, changes: PersonChanges) -> Response:
        """Sets what is given; null clears."""
        changed = await self._sync.update_person(gallery, person, changes.model_dump(exclude_unset=True))
        return Answer(told(exchange_of(request).request_id, person_json(changed)))

    async def delete(self, gallery: str, person: str) -> Response:
        """Deletes the person and their faces; they match nobody once this has been answered."""
        await self._sync.delete_person(gallery, person)
        return no_content()
