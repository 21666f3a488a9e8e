"""Settings come from the environment or facet.toml, and a wrong one is one line that repeats no value."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.config import Settings, is_loopback, load_settings
from service.errors import StartFailed

SECRET = "s3cret-" * 6


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_no_configuration_at_all_is_a_configuration() -> None:
    settings = load_settings()
    assert (settings.http_host, settings.http_port, settings.grpc_port) == ("127.0.0.1", 8080, 8081)
    assert (settings.bundle, settings.backend, settings.auth) == (Path("models/default"), "auto", "on")
    assert settings.timeout_ms == 5_000
    assert settings.max_body_bytes == 20_000_000
    assert settings.max_pixels == 50_000_000
    assert settings.lanes >= 1
    assert settings.url == f"sqlite+aiosqlite:///{Path('data').resolve() / 'facet.sqlite3'}"


def test_arguments_win_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("facet.toml").write_text('http_port = 1\ngrpc_port = 2\nbundle = "a"\n')
    monkeypatch.setenv("FACET_GRPC_PORT", "3")
    monkeypatch.setenv("FACET_BUNDLE", "b")
    settings = load_settings(bundle=Path("c"), http_host=None)
    assert (settings.http_port, settings.grpc_port, settings.bundle) == (1, 3, Path("c"))
    assert settings.http_host == "127.0.0.1"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().http_port = 1  # type: ignore[misc]


def test_an_unknown_setting_in_the_file_fails_the_start() -> None:
    Path("facet.toml").write_text("http_prot = 1\n")
    with pytest.raises(StartFailed, match="HTTP_PROT"):
        load_settings()


def test_a_file_that_is_not_toml_fails_the_start_without_its_text() -> None:
    Path("facet.toml").write_text(f"admin_key = {SECRET}")
    with pytest.raises(StartFailed) as failed:
        load_settings()
    assert "facet.toml" in failed.value.message
    assert SECRET not in failed.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "eighty"), ("HTTP_PORT", "70000"), ("BACKEND", "gpu"), ("AUTH", "maybe"), ("TIMEOUT_MS", "0"),
        ("QUEUE_LIMIT", "0"), ("ADMIN_KEY", "short"), ("INFERENCE_LANES", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_fails_the_start_in_one_line_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FACET_{name}", value)
    with pytest.raises(StartFailed, match=f"FACET_{name}: ") as failed:
        load_settings()
    assert "\n" not in failed.value.message
    assert value not in failed.value.message.replace(name, "") or value == "0"


def test_a_key_is_shown_by_no_form_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACET_ADMIN_KEY", SECRET)
    settings = load_settings()
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "facet.example"])
@pytest.mark.parametrize("door", ["http_host", "grpc_host"])
def test_auth_off_is_refused_unless_both_doors_are_loopback(door: str, host: str) -> None:
    with pytest.raises(StartFailed, match="FACET_AUTH=off"):
        load_settings(auth="off", **{door: host})
    assert load_settings(auth="on", **{door: host}).auth == "on"


NEAR = ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"]
FAR = ["0.0.0.0", "", "localhost.example"]


@pytest.mark.parametrize(("host", "loopback"), [*((of, True) for of in NEAR), *((of, False) for of in FAR)])
def test_loopback_is_known_by_address(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_limits_that_contradict_each_other_fail_the_start() -> None:
    with pytest.raises(StartFailed, match="pixel_budget"):
        load_settings(pixel_budget=1000)
    with pytest.raises(StartFailed, match="max_lag_s"):
        load_settings(max_lag_s=0.5)


def test_a_database_url_is_taken_as_it_is() -> None:
    assert Settings(database_url="postgresql+asyncpg://db/facet").url == "postgresql+asyncpg://db/facet"
