"""The OpenAPI document, and the same as a page to read.

Rule: the page is written here from the document, without a script or a style from elsewhere: it works on a machine
that reaches nothing, and nothing foreign runs beside somebody's key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service.rest.convert import Json
from service.rest.responses import Answer
from service.rest.routing import PUBLIC, SCOPE_FIELD, add

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px ui-monospace,monospace}pre{background:#f4f4f4;padding:.5rem;overflow:auto}
summary{cursor:pointer;padding:.3rem 0}td{padding:.1rem .8rem .1rem 0;vertical-align:top}
b{display:inline-block;min-width:4.5rem}small{color:#666}"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class DocumentRoutes:
    """`/openapi.json`, `/docs`. `describe` makes the document; it is asked once, when somebody wants it."""

    def __init__(self, describe: Callable[[], Json]) -> None:
        self._describe = describe

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router,
            "GET",
            "/openapi.json",
            self.document,
            scope=PUBLIC,
            name="openapi",
            include_in_schema=False,
        )
        add(router, "GET", "/docs", self.page, scope=PUBLIC, name="docs", include_in_schema=False)

    async def document(self) -> Response:
        """The OpenAPI document."""
        return Answer(self._describe())

    async def page(self) -> Response:
        """The OpenAPI document as a page."""
        text = "".join(_page(self._describe()))
        return Response(text, media_type="text/html", headers={"content-security-policy": POLICY})


def _page(document: Json) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    yield f"<h1>{title} {escape(document['info']['version'])}</h1>"
    for paragraph in document["info"]["description"].split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    yield '<p><a href="openapi.json">openapi.json</a></p>'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method.upper(), path, operation)
    yield "</html>"


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<details><summary><b>{method}</b> <code>{escape(path)}</code> "
    yield f"<small>{escape(operation.get('description', ''))}</small></summary>"
    yield f"<p>Scope: <code>{escape(operation.get(SCOPE_FIELD, ''))}</code></p><table>"
    for parameter in operation.get("parameters", ()):
        name, where = escape(parameter["name"]), escape(parameter["in"])
        yield f"<tr><td><code>{name}</code><td>{where}<td>{escape(parameter.get('description', ''))}"
    yield "</table>"
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h4>{escape(media)}</h4>"
        for one in body.get("examples", {}).values():
            yield f"<pre>{escape(_shown(one['value']))}</pre>"
    yield "<table>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<tr><td><code>{escape(status)}</code><td>{escape(answer.get('description', ''))}"
    yield "</table></details>"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} = {each}" for name, each in value.items())
    return str(value)
