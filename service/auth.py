"""Who is calling and what they may do: API keys, scopes, the key of the first start.

A key is shown once and stored as a keyed hash. Checking one costs microseconds and never asks the database:
the list of keys is held in memory and renewed in the background, so a flood of wrong keys costs the database
nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy.exc import IntegrityError

from service.errors import Forbidden, InvalidParameter, NotReady, StartFailed, Unauthenticated
from service.storage import api_keys, fields
from service.storage.api_keys import StoredKey
from service.storage.database import Database
from service.storage.models import now
from service.storage.records import ApiKey

log = structlog.get_logger(__name__)

SCOPES = frozenset({"detect", "embed", "verify", "enroll", "identify", "admin", "audit"})
TOKEN = re.compile(r"fk_([a-z2-7]{12})_([a-z2-7]{40})")  # 60 and 200 random bits
USED_EVERY = timedelta(hours=1)  # how coarse `last_used` is
ADMIN_FILE = "admin.key"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: `key_id` names the API key (or `admin-key`, `auth-off`)."""

    key_id: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises `Forbidden` (details.scope) unless this principal has `scope`."""
        if scope not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope}", scope=scope)


class ApiKeys:
    """The keys of this service. A revoked key is refused at once on this replica; on others after `refresh_s`
    at the next use, and never later than `max_stale_s`: a list that cannot be renewed for that long is not
    used."""

    def __init__(self, database: Database, *, refresh_s: float = 2.0, max_stale_s: float = 10.0) -> None:
        self._database = database
        self._refresh_s = refresh_s
        self._max_stale_s = max_stale_s
        self._pepper: bytes | None = None
        self._known: dict[str, StoredKey] = {}
        self._revision = -1
        self._read_s = -float("inf")  # when the list was last known to be the newest
        self._reading = asyncio.Lock()
        self._revoked_here: set[str] = set()
        self._used: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, name: str, scopes: Collection[str]) -> tuple[ApiKey, str]:
        """A new key and its token `fk_<id>_<secret>`, which is shown this once. `InvalidParameter` on unknown
        scopes."""
        checked = fields.text("name", name)
        if checked is None:
            raise InvalidParameter("a key needs a name", parameter="name")
        unknown = sorted(set(scopes) - SCOPES)
        if unknown or not scopes:
            raise InvalidParameter(f"scopes must be some of {', '.join(sorted(SCOPES))}", parameter="scopes")
        token = new_token()
        async with self._database.writing() as session:
            pepper = await api_keys.pepper(session)
            key = await api_keys.create(session, token_id(token), checked, set(scopes), hashed(token, pepper))
        await self._renew_quietly()  # the token must reach its owner, whatever happens now
        return key, token

    async def create_first(self, token: str) -> bool:
        """Stores `token` with every scope if there never was a key; whether it did."""
        try:
            async with self._database.writing() as session:
                pepper = await api_keys.pepper(session)  # replicas that start together queue or collide here
                if await api_keys.count(session):
                    return False
                await api_keys.create(session, token_id(token), "admin", SCOPES, hashed(token, pepper))
        except IntegrityError:
            return False
        await self._renew()
        return True

    async def list(self) -> Sequence[ApiKey]:
        """Every key, revoked ones included, oldest first."""
        async with self._database.reading() as session:
            return [stored.key for stored in await api_keys.find(session)]

    async def revoke(self, key_id: str) -> None:
        """`ApiKeyNotFound` if there is none; revoking twice is fine."""
        async with self._database.writing() as session:
            await api_keys.revoke(session, key_id)
        # A renewal that began before the commit may still bring the key back: this replica refuses it all the
        # same.
        self._revoked_here.add(key_id)
        await self._renew_quietly()

    async def check(self, token: str) -> ApiKey | None:
        """The key of `token`, None if it is wrong or revoked; from memory, unless the list is old."""
        age = time.monotonic() - self._read_s
        if age > self._max_stale_s:
            await self._renew()
        elif age > self._refresh_s and not self._reading.locked():
            self._spawn(self._renew_quietly())
        matched = TOKEN.fullmatch(token)
        stored = self._known.get(matched[1]) if matched else None
        if stored is None or self._pepper is None or stored.key.id in self._revoked_here:
            return None
        if not hmac.compare_digest(hashed(token, self._pepper), stored.hash):
            return None
        self._note_use(stored.key)
        return stored.key

    async def close(self) -> None:
        """Waits for what is being written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _renew(self) -> None:
        """Reads the list again if it changed. Whatever was committed before this began is seen."""
        async with self._reading:
            began = time.monotonic()
            async with self._database.reading() as session:
                revision = await api_keys.revision(session)
                if revision != self._revision:
                    self._pepper = await api_keys.known_pepper(session)
                    stored = await api_keys.find(session)
                    self._known = {of.key.id: of for of in stored if of.key.revoked is None}
                    self._revision = revision
            self._read_s = began

    async def _renew_quietly(self) -> None:
        try:
            await self._renew()
        except Exception as failure:  # the list's age tells, in `check`
            log.warning("api_keys_not_renewed", kind=type(failure).__name__)

    def _note_use(self, key: ApiKey) -> None:
        last_s = self._used.get(key.id)
        if last_s is not None and time.monotonic() - last_s < USED_EVERY.total_seconds():
            return
        self._used[key.id] = time.monotonic()
        if key.last_used is None or now() - key.last_used > USED_EVERY:
            self._spawn(self._store_use(key.id))

    async def _store_use(self, key_id: str) -> None:
        try:
            async with self._database.writing() as session:
                await api_keys.used(session, [key_id])
        except NotReady:
            self._used.pop(key_id, None)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Authenticator:
    """Turns the headers of a request into a `Principal`."""

    def __init__(self, keys: ApiKeys, *, enabled: bool = True, admin_key: str | None = None) -> None:
        self._keys = keys
        self._enabled = enabled
        # Hashed, so that the comparison takes the same time whatever the length of what is sent.
        self._salt = secrets.token_bytes(32)
        self._admin = hashed(admin_key, self._salt) if admin_key else None

    async def authenticate(self, x_api_key: str | None, authorization: str | None) -> Principal:
        """The caller of `X-API-Key: …` or `Authorization: Bearer …` (header or gRPC metadata values).

        Raises `Unauthenticated` when there is no key or it is wrong or revoked, or both are given and differ;
        `NotReady` when the keys could not be read for too long."""
        if not self._enabled:
            return Principal("auth-off", SCOPES)
        token = presented(x_api_key, authorization)
        if self._admin is not None and hmac.compare_digest(hashed(token, self._salt), self._admin):
            return Principal("admin-key", SCOPES)
        key = await self._keys.check(token)
        if key is None:
            raise Unauthenticated("the API key is not valid")
        return Principal(key.id, key.scopes)


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The admin key that the first start generated: where it was written, and itself (print only to a
    terminal)."""

    path: Path
    token: str


async def first_start(
    keys: ApiKeys, data_dir: Path, *, enabled: bool, admin_key: str | None
) -> FirstKey | None:
    """Makes the first admin key and writes it to `<data dir>/admin.key` (0600) if there never was a key; None
    else.

    Not with `FACET_AUTH=off` nor with `FACET_ADMIN_KEY`. Raises `StartFailed` when the file cannot be
    trusted."""
    if not enabled or admin_key is not None or await keys.list():
        return None
    path = data_dir / ADMIN_FILE
    token = new_token()
    # The file first: a key that nobody was told would lock everybody out. A start that was killed in between
    # is continued with the file it left.
    written = _write_secret(path, token)
    if not written:
        token = _read_secret(path)
    if await keys.create_first(token):
        return FirstKey(path, token)
    if written:  # another replica was first, and its file has the key
        path.unlink()
    return None


def presented(x_api_key: str | None, authorization: str | None) -> str:
    """The token in the headers; `Unauthenticated` if there is none or there are two."""
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Authorization must be: Bearer <API key>")
    tokens = {token.strip() for token in (x_api_key, bearer) if token is not None}
    if len(tokens) != 1 or tokens == {""}:
        raise Unauthenticated("an API key is needed: X-API-Key, or Authorization: Bearer")
    return tokens.pop()


def new_token() -> str:
    """`fk_<id>_<secret>`."""
    letters = base64.b32encode(secrets.token_bytes(35)).decode().lower()  # 56 of them
    return f"fk_{letters[:12]}_{letters[12:52]}"


def token_id(token: str) -> str:
    return token.split("_")[1]


def hashed(token: str, pepper: bytes) -> bytes:
    """BLAKE2b under the pepper: tokens are random, so no slow hash is needed, and a stolen table tells
    nothing."""
    return hashlib.blake2b(token.encode("utf-8", "replace"), key=pepper, digest_size=32).digest()


def _write_secret(path: Path, token: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as failure:
        raise StartFailed(f"{path} cannot be written: {failure.strerror}") from failure
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return True


def _read_secret(path: Path) -> str:
    refused = StartFailed(f"{path} exists but is no admin key of this service: move it away and start again")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise refused from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise refused
        token = os.read(handle, 256).decode("ascii", "replace").strip()
    finally:
        os.close(handle)
    if not TOKEN.fullmatch(token):
        raise refused
    return token
