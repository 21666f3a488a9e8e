"""How a benchmark measures and writes down: interleaved rounds, percentiles, results with machine, date and command.

Rule: a result names the kind of machine, never its name, its user or a path of it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"

Row = Mapping[str, object]


@dataclass(frozen=True)
class Taken:
    """What the calls of one contender took. wall, cpu: seconds, float64 [rounds]; cpu counts every thread."""

    wall: np.ndarray
    cpu: np.ndarray

    def row(self) -> dict[str, float]:
        """Milliseconds: median and 99th percentile of the wall clock, median and minimum of processor time."""
        return {
            "p50_ms": _ms(np.quantile(self.wall, 0.5)),
            "p99_ms": _ms(np.quantile(self.wall, 0.99)),
            "cpu_ms": _ms(np.quantile(self.cpu, 0.5)),
            "min_cpu_ms": _ms(self.cpu.min()),
        }


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, Taken]:
    """What each call took; in every round each contender runs once, so that a busy hour hits all alike."""
    for _ in range(warm_up):
        for call in contenders.values():
            call()
    seconds = {name: np.empty((2, rounds)) for name in contenders}
    for i in range(rounds):
        for name, call in contenders.items():
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            seconds[name][:, i] = time.perf_counter() - wall, time.process_time() - cpu
    return {name: Taken(*taken) for name, taken in seconds.items()}


def _ms(seconds: float | np.floating) -> float:
    return round(float(seconds) * 1e3, 3)


def machine() -> dict[str, object]:
    """The kind of machine: processor, cores that may be used, memory, Python; nothing that identifies it."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [
        word for word in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {word}" in flags
    ]
    return f"{names[0] if names else platform.machine()} ({', '.join(extras)})"


def versions(*distributions: str) -> dict[str, str]:
    """The installed versions of the libraries that the answer depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in distributions}


def write_result(name: str, question: str, rows: Sequence[Row], **facts: object) -> Path:
    """Write benchmarks/results/<name>.json and .md and print the table. Returns the Markdown file's path."""
    command = "python -m benchmarks." + " ".join([name, *sys.argv[1:]])
    record = {
        "question": question,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "machine": machine(),
        **facts,
        "rows": list(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    page = RESULTS / f"{name}.md"
    page.write_text(_markdown(name, record))
    print(page.read_text())
    return page


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; a column for every key, an empty cell where a row lacks it."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _markdown(name: str, record: Mapping[str, object]) -> str:
    rows = record["rows"]
    assert isinstance(rows, list)
    facts = [f"- {key}: {_plain(value)}" for key, value in record.items() if key not in ("question", "rows")]
    return f"# {name}\n\n{record['question']}\n\n{table(rows)}\n\n" + "\n".join(facts) + "\n"


def _plain(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
