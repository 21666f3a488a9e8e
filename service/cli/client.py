"""The REST API as calls of the command line: answers as JSON objects, refusals as `Refused`.

Rule: only the public API is spoken. Where the service says that it is busy, the call is sent again when it asks for it.
"""

from __future__ import annotations

import argparse
import base64
import os
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from service.cli.arguments import settings_of
from service.cli.transport import Http, InProcess, Json, Transport, Unreachable
from service.config import Settings
from service.errors import StartFailed

TIMEOUT_S: Final = 60.0
PATIENCE_S: Final = 60.0  # how long a busy service is asked again
BUSY: Final = frozenset({429, 503})


class Refused(Exception):
    """The service's own refusal: the code, message and details of its error envelope."""

    def __init__(self, status: int, error: Json) -> None:
        self.status = status
        self.code = str(error.get("code", "unknown"))
        self.message = str(error.get("message", f"status {status}"))
        self.details: Json = error.get("details") or {}
        super().__init__(self.message)


class Client:
    """The calls that the commands need."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def enroll(self, images: Sequence[bytes], **fields: Any) -> Json:
        """`POST /v1/enroll`"""
        return self._ask("POST", "/v1/enroll", {"images": [_base64(image) for image in images], **fields})

    def identify(self, image: bytes, **fields: Any) -> Json:
        """`POST /v1/identify`"""
        return self._ask("POST", "/v1/identify", {"image": _base64(image), **fields})

    def create_key(self, name: str, scopes: Sequence[str]) -> Json:
        """`POST /v1/api-keys`"""
        return self._ask("POST", "/v1/api-keys", {"name": name, "scopes": list(scopes)})

    def keys(self) -> list[Json]:
        """`GET /v1/api-keys`"""
        found: list[Json] = self._ask("GET", "/v1/api-keys")["api_keys"]
        return found

    def revoke_key(self, key_id: str) -> None:
        """`DELETE /v1/api-keys/{key}`"""
        self._ask("DELETE", f"/v1/api-keys/{quote(key_id, safe='')}")

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        body = None if body is None else {name: value for name, value in body.items() if value is not None}
        until = time.monotonic() + PATIENCE_S
        while True:
            status, headers, answer = self._transport.send(method, path, body, TIMEOUT_S)
            if status < 400:
                return answer
            error = answer.get("error")
            refused = Refused(status, error if isinstance(error, dict) else {})
            if status not in BUSY or refused.details.get("write_committed"):
                raise refused
            wait = float(headers.get("retry-after", 1))
            if time.monotonic() + wait > until:
                raise Unreachable(f"the service stays busy: {refused.message} ({refused.code})")
            time.sleep(wait)


def transport_of(chosen: argparse.Namespace) -> Transport:
    """How this command reaches the API: `--offline` opens the data dir, else a running service is asked."""
    settings = settings_of(chosen)
    if chosen.offline:
        if chosen.url or chosen.key:
            raise StartFailed("--offline takes neither --url nor --key")
        return InProcess(_offline(settings))
    return Http(chosen.url or f"http://{_host(settings)}:{settings.http_port}", chosen.key or _key(settings))


def _offline(settings: Settings) -> Settings:
    """Whoever may open the data dir may do everything in it: no key is asked, and no port is opened."""
    return settings.model_copy(update={"auth": "off", "admin_key": None, "log_level": "error"})


def _host(settings: Settings) -> str:
    if settings.http_host in ("0.0.0.0", "::"):  # listening everywhere, and so here
        return "127.0.0.1"
    return f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host


def _key(settings: Settings) -> str | None:
    """A key where one was left for us; without one the service says whether it asks for any."""
    from service.auth import ADMIN_FILE

    if key := os.environ.get("FACET_KEY"):
        return key
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    try:
        return (settings.data_dir / ADMIN_FILE).read_text().strip() or None
    except OSError:
        return None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
