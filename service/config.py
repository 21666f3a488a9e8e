"""Every setting of the service, its default and its bounds; the environment wins over `facet.toml`.

Only `bootstrap` and the doors' start read a `Settings`: deep code receives the values it needs. A message about a
wrong setting never repeats the value, which may be a secret.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.errors import StartFailed

BackendKind = Literal["auto", "onnxruntime", "openvino", "cuda", "tensorrt"]


class Settings(BaseSettings):
    """The configuration of one process, frozen: arguments, then `FACET_*`, then `facet.toml` in the working folder."""

    model_config = SettingsConfigDict(
        env_prefix="FACET_", toml_file="facet.toml", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)  # 0: any free port
    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(default=8081, ge=0, le=65535)

    data_dir: Path = Path("data")  # database, admin key, engine cache
    database_url: str | None = None  # None: SQLite in the data dir
    bundle: Path = Path("models/default")
    require_licence: str | None = None  # refuse bundles under another licence, e.g. "commercial"

    auth: Literal["on", "off"] = "on"
    admin_key: SecretStr | None = Field(default=None, min_length=32)

    backend: BackendKind = "auto"
    inference_lanes: int | None = Field(default=None, ge=1, le=256)  # None: one a core
    decode_threads: int | None = Field(default=None, ge=1, le=256)  # None: one a core
    max_batch: int | None = Field(default=None, ge=1, le=1024)  # None: by backend

    max_body_bytes: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    pixel_budget: int = Field(
        default=256_000_000, ge=1
    )  # decoded pixels held at once, all requests; 3 bytes each
    queue_limit: int = Field(default=128, ge=1)  # requests in flight, decode included; one more is refused
    timeout_ms: int = Field(default=5_000, ge=1)  # where the caller gives no deadline
    max_timeout_ms: int = Field(default=60_000, ge=1)  # a longer deadline is shortened to this
    drain_s: float = Field(default=10.0, ge=0)  # how long running requests may finish after SIGTERM

    sync_interval_s: float = Field(default=1.0, gt=0)  # how often other replicas' writes are looked for
    max_lag_s: float = Field(default=10.0, gt=0)  # not ready when the index may be older than this

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "off" and not (is_loopback(self.http_host) and is_loopback(self.grpc_host)):
            raise ValueError("FACET_AUTH=off is allowed on loopback hosts only; set FACET_AUTH=on")
        if self.pixel_budget < self.max_pixels:
            raise ValueError("pixel_budget must be at least max_pixels")
        if self.max_lag_s <= self.sync_interval_s:
            raise ValueError("max_lag_s must be above sync_interval_s")
        return self

    @property
    def url(self) -> str:
        """The database's SQLAlchemy URL with its async driver; may hold a password, so never log it."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{(self.data_dir / 'facet.sqlite3').resolve()}"
        return self.database_url

    @property
    def lanes(self) -> int:
        """Threads that run models."""
        return self.inference_lanes or available_cores()

    @property
    def decoders(self) -> int:
        """Threads that decode pictures and cut faces."""
        return self.decode_threads or available_cores()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file; no dotenv, no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (flags of `facet serve`) win. Raises `StartFailed` in one line."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as wrong:
        raise StartFailed(_one_line(wrong)) from None
    except ValueError:  # a facet.toml that is not TOML; its text may hold a secret
        raise StartFailed("facet.toml is not valid TOML") from None


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def available_cores() -> int:
    """Cores that this process may use (a container's affinity counts, not the machine's)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_line(wrong: ValidationError) -> str:
    problems = []
    for error in wrong.errors(include_url=False, include_context=False, include_input=False):
        place = "_".join(str(part) for part in error["loc"]).upper()
        said = error["msg"].removeprefix("Value error, ")
        problems.append(f"FACET_{place}: {said}" if place else said)
    return "; ".join(problems)
