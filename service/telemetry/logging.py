"""Log lines: one JSON object each, on standard error, scrubbed before they are written.

Whatever is logged, by Facet or by a library, passes `scrub`: no picture, vector, key or traceback leaves it. A new
processor goes before `scrub`, never behind it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import structlog

_MAX_TEXT = 500  # characters; base64 pictures and vectors in words are longer
_MAX_ITEMS = 20
_SECRET_NAMES = re.compile(
    r"key$|^authorization$|password|secret|token|pepper|cookie|url$|image|picture|embedding|vector|probe|template$",
    re.I,
)
# Keys that Facet issues, credentials in URLs and bearer tokens, wherever they stand in a text.
_SECRET_TEXTS = re.compile(
    r"(?:fk|facet)_[A-Za-z0-9_-]{8,}|(?<=://)[^/\s:@]+:[^@\s/]+(?=@)|(?i:bearer\s+\S+|x-api-key\W+\S+)|[A-Za-z0-9+/_-]{64,}"
)
# Their finer levels quote the parameters of every statement (names, metadata, vectors), or tell of migrations.
_TALKATIVE = ("aiosqlite", "sqlalchemy", "asyncpg", "alembic")
REDACTED = "[redacted]"


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log line of this process, libraries included, through the scrubber to `stream` (standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _locate,
        scrub,
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            keep_exc_info=False,
            keep_stack_info=False,
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """The logger of a module: `log.info("gallery rebuilt", gallery="default", templates=12)`."""
    return structlog.stdlib.get_logger(name)


def scrub(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: redact by name, by type and by look. `event` itself is scrubbed as text."""
    for name in ("exc_info", "stack_info", "exception", "stack"):
        event.pop(name, None)
    for name, value in event.items():
        if name not in ("_record", "_from_structlog"):
            event[name] = _clean(name, value)
    return event


def _locate(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception becomes its kind and the line that raised it: its message may quote what came in."""
    error = event.get("exc_info")
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["at"] = _innermost(error.__traceback__)
    return event


def _innermost(trace: TracebackType | None) -> str:
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        module = str(trace.tb_frame.f_globals.get("__name__", "?"))
        lines.append(f"{module}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    ours = [line for line in lines if line.startswith(("service.", "bundle."))]
    return (ours or lines or ["?"])[-1]


def _clean(name: str, value: Any) -> Any:
    if _SECRET_NAMES.search(name) and not isinstance(value, bool | int | float | None):
        return REDACTED
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, str):
        return _SECRET_TEXTS.sub(REDACTED, value[:_MAX_TEXT])
    if isinstance(value, bytes | bytearray | memoryview | np.ndarray):
        return REDACTED
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), each) for key, each in list(value.items())[:_MAX_ITEMS]}
    if isinstance(value, Sequence | set | frozenset):
        return _clean_all(name, list(value))
    if isinstance(value, BaseException):
        return type(value).__name__
    return _SECRET_TEXTS.sub(REDACTED, str(value)[:_MAX_TEXT])


def _clean_all(name: str, values: list[Any]) -> Any:
    if len(values) > 4 and all(isinstance(each, float | np.floating) for each in values):
        return REDACTED  # a vector in all but name
    return [_clean(name, each) for each in values[:_MAX_ITEMS]]
