"""API keys: made, listed, revoked; all of it needs the scope `admin`.

Rule: a key is told once, in the answer that made it. A repeated creation therefore makes another key: an answer that
could be given again would have to be stored.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.auth import ApiKeys
from service.rest.convert import api_key_json, told
from service.rest.exchange import exchange_of
from service.rest.openapi import example, refusals
from service.rest.parameters import NewApiKey
from service.rest.responses import Answer, no_content
from service.rest.routing import add
from service.rest.schemas import ApiKeysAnswer, NewApiKeyAnswer


class ApiKeyRoutes:
    """`/v1/api-keys`"""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router, "GET", "/v1/api-keys", self.list, scope="admin", name="list_api_keys",
            response_model=ApiKeysAnswer, responses=refusals(401, 403), tags=["api keys"],
        )  # fmt: skip
        add(
            router, "POST", "/v1/api-keys", self.create, scope="admin", name="create_api_key", status_code=201,
            response_model=NewApiKeyAnswer, responses=refusals(400, 401, 403, 413, 422), tags=["api keys"],
            extra=example({"name": "front door", "scopes": ["identify"]}),
        )  # fmt: skip
        add(
            router, "DELETE", "/v1/api-keys/{key}", self.revoke, scope="admin", name="revoke_api_key", status_code=204,
            responses=refusals(401, 403, 404), tags=["api keys"],
        )  # fmt: skip

    async def list(self, request: Request) -> Response:
        """Every key without its secret, revoked ones included."""
        keys = [api_key_json(key) for key in await self._keys.list()]
        return Answer(told(exchange_of(request).request_id, {"api_keys": keys, "next_cursor": None}))

    async def create(self, request: Request, new: NewApiKey) -> Response:
        """A new key; `key` is shown this once."""
        made, token = await self._keys.create(new.name, new.scopes)
        answer = {**api_key_json(made), "key": token}
        return Answer(told(exchange_of(request).request_id, answer), 201, {"cache-control": "no-store"})

    async def revoke(self, key: str) -> Response:
        """The key is refused from now on."""
        await self._keys.revoke(key)
        return no_content()
