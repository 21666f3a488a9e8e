"""Who is let in: keys, scopes, revocation, the first start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.auth import SCOPES, ApiKeys, Authenticator, Principal, first_start, new_token
from service.errors import (
    ApiKeyNotFound,
    Forbidden,
    InvalidParameter,
    NotReady,
    StartFailed,
    Unauthenticated,
)
from service.storage.database import Database
from service.storage.models import ApiKeyRow


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/data/facet.sqlite3")
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def keys(database: Database) -> AsyncIterator[ApiKeys]:
    opened = ApiKeys(database)
    yield opened
    await opened.close()


async def test_a_key_lets_its_owner_in_with_its_scopes_only(keys: ApiKeys) -> None:
    key, token = await keys.create("camera 1", {"identify", "detect"})
    authenticator = Authenticator(keys)
    assert token.startswith(f"fk_{key.id}_")
    for headers in (
        (token, None),
        (None, f"Bearer {token}"),
        (None, f"bearer  {token} "),
        (token, f"Bearer {token}"),
    ):
        principal = await authenticator.authenticate(*headers)
        assert principal == Principal(key.id, frozenset({"identify", "detect"}))
    principal.require("identify")
    with pytest.raises(Forbidden) as refused:
        principal.require("admin")
    assert refused.value.details == {"scope": "admin"}


async def test_whatever_is_not_a_key_is_refused(keys: ApiKeys) -> None:
    key, token = await keys.create("k", {"admin"})
    other = new_token()
    wrong = [
        (None, None),
        ("", None),
        (None, "Bearer"),
        (None, f"Basic {token}"),
        (None, token),
        (token[:-1], None),
        (token + "a", None),
        (token.upper(), None),
        (other, None),
        (f"fk_{key.id}_{other.split('_')[2]}", None),
        ("fk_" + "\ud800" * 12, None),
        ("x" * 100_000, None),
        (token, f"Bearer {other}"),
    ]
    authenticator = Authenticator(keys)
    for headers in wrong:
        with pytest.raises(Unauthenticated) as refused:
            await authenticator.authenticate(*headers)
        assert token not in str(refused.value)


async def test_the_token_is_nowhere_in_the_database(
    keys: ApiKeys, database: Database, tmp_path: Path
) -> None:
    _, token = await keys.create("k", {"admin"})
    async with database.reading() as session:
        row = (await session.scalars(select(ApiKeyRow))).one()
    assert len(row.hash) == 32
    secret = token.split("_")[2].encode()
    assert all(secret not in path.read_bytes() for path in (tmp_path / "data").iterdir())


async def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(
    keys: ApiKeys, database: Database
) -> None:
    key, token = await keys.create("k", {"detect"})
    elsewhere = ApiKeys(database, refresh_s=0.05)
    here, there = Authenticator(keys), Authenticator(elsewhere)
    await there.authenticate(token, None)
    await keys.revoke(key.id)
    await keys.revoke(key.id)
    with pytest.raises(Unauthenticated):
        await here.authenticate(token, None)
    async with asyncio.timeout(5):
        while True:
            try:
                await there.authenticate(token, None)
            except Unauthenticated:
                break
            await asyncio.sleep(0.01)
    assert [of.revoked is not None for of in await keys.list()] == [True]
    with pytest.raises(ApiKeyNotFound):
        await keys.revoke("nobody")
    await elsewhere.close()


async def test_a_renewal_that_raced_the_revocation_does_not_bring_the_key_back(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = await keys.create("k", {"detect"})

    async def fails() -> None:
        raise NotReady

    monkeypatch.setattr(keys, "_renew", fails)  # the list in memory still holds the key
    await keys.revoke(key.id)
    assert await keys.check(token) is None


async def test_keys_that_cannot_be_read_again_are_not_trusted_for_long(
    keys: ApiKeys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ApiKeys(database, refresh_s=0.0, max_stale_s=0.3)
    _, token = await keys.create("k", {"detect"})

    async def fails() -> None:
        raise NotReady

    monkeypatch.setattr(keys, "_renew", fails)
    assert await keys.check(token) is not None
    await asyncio.sleep(0.35)
    with pytest.raises(NotReady):
        await keys.check(token)
    await keys.close()


async def test_checking_a_key_costs_microseconds_and_no_query(
    keys: ApiKeys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await keys.create("k", {"detect"})
    for number in range(20):
        await keys.create(f"k{number}", {"detect"})
    authenticator = Authenticator(keys, admin_key="a" * 40)
    await authenticator.authenticate(token, None)
    await keys.close()  # what it wrote about the first use

    def no_query() -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(database, "reading", no_query)
    monkeypatch.setattr(keys, "_read_s", time.monotonic() + 60)
    costs_s = []
    for _ in range(300):
        began = time.perf_counter()
        await authenticator.authenticate(token, None)
        costs_s.append(time.perf_counter() - began)
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(new_token(), None)
    assert sorted(costs_s)[len(costs_s) // 2] < 50e-6


async def test_the_last_use_is_written_down_once_an_hour(keys: ApiKeys) -> None:
    _, token = await keys.create("k", {"detect"})
    for _ in range(5):
        assert await keys.check(token) is not None
    await keys.close()
    used = (await keys.list())[0].last_used
    assert used is not None
    await keys.check(token)
    await keys.close()
    assert (await keys.list())[0].last_used == used


@pytest.mark.parametrize(
    ("name", "scopes"), [("k", {"root"}), ("k", set()), ("", {"admin"}), ("n\0", {"admin"})]
)
async def test_a_key_of_unknown_scopes_or_without_a_name_is_not_made(
    keys: ApiKeys, name: str, scopes: set[str]
) -> None:
    with pytest.raises(InvalidParameter):
        await keys.create(name, scopes)
    assert await keys.list() == []


async def test_the_first_start_writes_a_key_that_only_its_owner_can_read(
    keys: ApiKeys, tmp_path: Path
) -> None:
    first = await first_start(keys, tmp_path / "data", enabled=True, admin_key=None)
    assert first is not None
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert first.path.read_text() == first.token + "\n"
    principal = await Authenticator(keys).authenticate(first.token, None)
    assert principal.scopes == SCOPES
    assert first.token not in repr(first.path)
    assert await first_start(keys, tmp_path / "data", enabled=True, admin_key=None) is None
    await keys.revoke(principal.key_id)  # a revoked key is a key: no start makes another by itself
    assert await first_start(keys, tmp_path / "data", enabled=True, admin_key=None) is None


async def test_a_first_start_that_was_killed_in_between_is_continued(keys: ApiKeys, tmp_path: Path) -> None:
    token = new_token()
    path = tmp_path / "data" / "admin.key"
    path.touch(0o600)
    path.write_text(token + "\n")
    first = await first_start(keys, tmp_path / "data", enabled=True, admin_key=None)
    assert first is not None
    assert first.token == token
    assert (await Authenticator(keys).authenticate(token, None)).scopes == SCOPES


@pytest.mark.parametrize("trap", ["readable", "link", "garbage", "folder"])
async def test_a_key_file_that_somebody_else_laid_out_fails_the_start(
    keys: ApiKeys, tmp_path: Path, trap: str
) -> None:
    path = tmp_path / "data" / "admin.key"
    if trap == "link":
        target = tmp_path / "elsewhere"
        target.touch(0o600)
        target.write_text(new_token())
        path.symlink_to(target)
    elif trap == "folder":
        path.mkdir()
    else:
        path.touch(0o644 if trap == "readable" else 0o600)
        path.write_bytes(b"\xff\xfe" if trap == "garbage" else new_token().encode())
    with pytest.raises(StartFailed, match=r"admin\.key"):
        await first_start(keys, tmp_path / "data", enabled=True, admin_key=None)
    assert await keys.list() == []


async def test_replicas_that_start_together_make_one_admin_key(database: Database, tmp_path: Path) -> None:
    replicas = [ApiKeys(database) for _ in range(3)]
    firsts = await asyncio.gather(
        *(
            first_start(of, tmp_path / f"data{number}", enabled=True, admin_key=None)
            for number, of in enumerate(replicas)
        )
    )
    assert sum(first is not None for first in firsts) == 1
    assert len(list(tmp_path.glob("data*/admin.key"))) == 1
    assert len(await replicas[0].list()) == 1


async def test_a_configured_admin_key_has_every_scope_and_none_is_made(keys: ApiKeys, tmp_path: Path) -> None:
    admin_key = "correct horse battery staple forty chars"
    assert await first_start(keys, tmp_path / "data", enabled=True, admin_key=admin_key) is None
    assert await keys.list() == []
    authenticator = Authenticator(keys, admin_key=admin_key)
    assert await authenticator.authenticate(None, f"Bearer {admin_key}") == Principal("admin-key", SCOPES)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(admin_key[:-1], None)


async def test_switched_off_everybody_has_every_scope(keys: ApiKeys, tmp_path: Path) -> None:
    assert await first_start(keys, tmp_path / "data", enabled=False, admin_key=None) is None
    assert await Authenticator(keys, enabled=False).authenticate(None, None) == Principal("auth-off", SCOPES)
