"""Does memory stay where it is? 20,000 identifications with pictures of many sizes must not grow it by more than 5 %.

    python -m benchmarks.soak [--calls 20000] [--bundle DIR]

Resident memory of the service (with its children) after the first tenth of the calls, against after all of them. Exits
with 1 when it grew by more than 5 %, or when a call was not answered.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import load
from benchmarks.measure import versions, write_result
from benchmarks.pictures import bundle_to_measure, of_many_sizes, portraits
from benchmarks.served import KEY, Served
from bundle.folder import open_bundle

ALLOWED = 0.05
STEPS = 10
PICTURES = 300


def resident(pid: int) -> int:
    """Bytes of resident memory of a process and all below it."""
    process = psutil.Process(pid)
    return int(sum(of.memory_info().rss for of in [process, *process.children(recursive=True)]))


def soak(service: Served, pictures: list[bytes], calls: int, connections: int) -> list[dict[str, object]]:
    """One row for every tenth of `calls`: what memory was after it."""
    requests = [load.identify_request(picture, KEY) for picture in pictures]
    rows: list[dict[str, object]] = []
    for step in range(1, STEPS + 1):
        outcome = load.run_count([("127.0.0.1", service.port)], requests, connections, calls // STEPS)
        time.sleep(1)  # what was answered last is still being put away
        rows.append(
            {
                "calls": step * (calls // STEPS),
                "resident_mb": round(resident(service.pid) / 1e6, 1),
                "pictures_a_second": round(sum(outcome.statuses.values()) / outcome.wall_s, 1),
                "statuses": dict(sorted(outcome.statuses.items())),
                "matches": outcome.matches,
            }
        )
        print(rows[-1], flush=True)
    return rows


def verdict(rows: list[dict[str, object]]) -> tuple[bool, str]:
    first, last = (float(str(rows[i]["resident_mb"])) for i in (0, -1))
    grown = last / first - 1
    refused = [row["statuses"] for row in rows if set(row["statuses"]) - {200}]  # type: ignore[call-overload]
    ok = grown <= ALLOWED and not refused
    return (
        ok,
        f"{'passed' if ok else 'FAILED'}: memory changed by {grown:+.1%} (at most {ALLOWED:+.0%}), refused {refused}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--bundle", type=Path, help="default: models/default, else a synthetic one")
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_to_measure(arguments.bundle, Path(folder))
        model = open_bundle(bundle).manifest.model_id
        drawn = model.startswith("synthetic")
        with Served(
            Path(folder) / "service", bundle, FACET_BACKEND=arguments.backend, FACET_TIMEOUT_MS="60000"
        ) as service:
            for number, picture in enumerate(portraits(8, drawn=drawn)):
                load.enrol(service.url, KEY, [picture], f"person {number}")
            rows = soak(service, of_many_sizes(PICTURES, drawn=drawn), arguments.calls, arguments.connections)
    ok, said = verdict(rows)
    write_result(
        "soak",
        "Does the service's memory stay where it is under pictures of many sizes?",
        rows,
        verdict=said,
        bundle=model,
        connections=arguments.connections,
        libraries=versions("onnxruntime", "openvino", "uvicorn", "opencv-python-headless"),
    )
    sys.exit(not ok)


if __name__ == "__main__":
    main()
