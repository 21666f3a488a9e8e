"""What FastAPI cannot see, described: the three bodies of a verb, the refusals, the keys; with examples that run.

Rule: an example holds pictures by name, `@alice.jpg` where bytes are sent and `<base64 of alice.jpg>` in JSON; a test
puts drawn pictures in their places and sends every example.
"""

from __future__ import annotations

from typing import Any, Final

from service.rest.convert import Json
from service.rest.parameters import VerbParameters
from service.rest.schemas import ErrorAnswer

TITLE: Final = "Facet"
DESCRIPTION: Final = """\
Face recognition with a stated error rate. The five verbs are also served without `/v1` (`POST /identify`).

Pictures are JPEG, PNG or WebP, sent as `multipart/form-data`, as a raw `image/*` body with the parameters in the query,
or in JSON as base64. Content types and file names of pictures are ignored. In the examples `@alice.jpg` stands for a
file's bytes and `<base64 of alice.jpg>` for its base64.

Every failure is told in one envelope, `{"error": {"code", "message", "details", "retryable"}, "request_id"}`.
`X-Request-Id` is echoed, `traceparent` accepted; 429 and 503 carry `Retry-After`.
"""

REFUSED: Final[dict[int, str]] = {
    400: "No picture, or a body that cannot be read (`missing_image`, `malformed_body`).",
    401: "No key, or a wrong one (`unauthenticated`).",
    403: "The key lacks the scope (`forbidden`).",
    404: "An id names nothing (`gallery_not_found`, `person_not_found`, `face_not_found`, `api_key_not_found`).",
    409: "It contradicts what is stored (`gallery_exists`, `external_id_exists`, `name_conflict`, "
    "`idempotency_conflict`, `embedding_space_mismatch`).",
    413: "Body or picture over its limit (`too_large`).",
    415: "Not JPEG, PNG or WebP (`unsupported_media`).",
    422: "Understood and refused (`invalid_parameter`, `invalid_image`, `no_face`, `nothing_accepted`, "
    "`fpir_unsupported`).",
    429: "Too much at once (`overloaded`); see `Retry-After`.",
    503: "Not ready, or the index cannot follow (`not_ready`, `index_unavailable`); see `Retry-After`.",
    504: "The deadline passed (`deadline_exceeded`).",
}
SECURITY: Final[Json] = {
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
IDEMPOTENT: Final[Json] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key and request are done once and answered as the first time, for 24 hours.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        }
    ]
}
TIMEOUT: Final[Json] = {
    "name": "X-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds in which an answer is of use; then 504.",
    "schema": {"type": "integer", "minimum": 1, "default": 5000},
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these statuses, all in the error envelope."""
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": REFUSED[status]} for status in statuses
    }
    told["default"] = {"model": ErrorAnswer, "description": "Any other failure, in the same envelope."}
    return told


def example(body: Json) -> Json:
    """An operation's example of a JSON body that FastAPI describes."""
    return {"requestBody": {"content": {"application/json": {"examples": {"example": {"value": body}}}}}}


def verb(
    kind: type[VerbParameters],
    *,
    required: tuple[str, ...],
    examples: dict[str, Json],
    raw: Json | None = None,
) -> Json:
    """The operation of a verb: its three bodies and its parameters.

    `examples` map a title to fields; picture fields hold names (`alice.jpg`, a list of names where many are taken).
    `raw`: the query of the example with a raw picture.
    """
    known = _properties(kind)
    sent = {**_pictures(kind, {"format": "binary"}), **_as_text(known)}
    encoded = {**_pictures(kind, {"contentEncoding": "base64"}), **known}
    picture: Json = {"type": "string", "format": "binary"}
    content: Json = {
        "multipart/form-data": _body(sent, required, _sent(kind, examples, "@{}")),
        "application/json": _body(encoded, required, _sent(kind, examples, "<base64 of {}>")),
        "image/*": {"schema": picture, "examples": {"raw": {"value": "@alice.jpg"}}},
    }
    queries = [_query(name, schema, (raw or {}).get(name)) for name, schema in _as_text(known).items()]
    return {"requestBody": {"required": True, "content": content}, "parameters": [TIMEOUT, *queries]}


def _pictures(kind: type[VerbParameters], encoding: Json) -> Json:
    one: Json = {"type": "string", **encoding}
    pictures: Json = dict.fromkeys(kind.one_picture, one)
    if kind.many_pictures:
        pictures[kind.many_pictures] = {"type": "array", "items": one}
    return pictures


def _body(properties: Json, required: tuple[str, ...], examples: Json) -> Json:
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return {"schema": schema, "examples": examples}


def _sent(kind: type[VerbParameters], examples: dict[str, Json], form: str) -> Json:
    def field(name: str, value: Any) -> Any:
        if name == kind.many_pictures:
            return [form.format(each) for each in value]
        return form.format(value) if name in kind.one_picture else value

    return {
        title: {"value": {name: field(name, value) for name, value in fields.items()}}
        for title, fields in examples.items()
    }


def _properties(kind: type[VerbParameters]) -> Json:
    """The parameters' schemas by name; "may be absent" is said by not being required, not by null."""
    found: Json = {}
    for name, schema in kind.model_json_schema()["properties"].items():
        own: Json = next((one for one in schema.pop("anyOf", ()) if one.get("type") != "null"), {})
        schema.pop("title", None)
        if schema.get("default", 0) is None:
            del schema["default"]
        found[name] = {**own, **schema}
    return found


def _as_text(properties: Json) -> Json:
    """The same in a form or a query, where `metadata` is a JSON text."""
    return {
        name: {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."}
        if schema.get("type") == "object"
        else schema
        for name, schema in properties.items()
    }


def _query(name: str, schema: Json, example: Any) -> Json:
    described = "With a raw picture: " + schema.get("description", "see the body.")
    query: Json = {"name": name, "in": "query", "required": False, "description": described, "schema": schema}
    return query if example is None else {**query, "example": example}
