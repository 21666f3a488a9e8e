"""What does an exact search of 1,000, 100,000 and 1,000,000 templates cost, and does it find what float32 says?

    python -m benchmarks.gallery [--sizes 1000 100000 1000000] [--dimensions 128 512]

Each size runs in a process of its own, so that bytes per template are the growth of resident memory. The largest
(1,000,000 × 512) needs 3 GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator

import numpy as np
import psutil

from benchmarks.measure import interleaved, versions, write_result
from service.gallery.index import GalleryIndex
from service.gallery.snapshot import Snapshot

CHUNK = 20_000
BATCH = 32
DEPTH = 10
PROBES = 64


def templates(rows: int, dimension: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, unit vectors float32 [n, dimension]) in chunks; a function of the row's number alone."""
    for start in range(0, rows, CHUNK):
        vectors = np.random.default_rng([1, start, dimension]).standard_normal(
            (min(CHUNK, rows - start), dimension), np.float32
        )
        yield start, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def person(row: int) -> str:
    """An id as long as the service's own."""
    return f"per_{row:020d}"


def build(rows: int, dimension: int) -> tuple[GalleryIndex, float]:
    """The index, one template a person, and the seconds that building it took (making up the vectors left out)."""
    index, seconds = GalleryIndex("bench", dimension), 0.0
    for start, vectors in templates(rows, dimension):
        persons = [person(start + i) for i in range(len(vectors))]
        faces = [f"fac_{start + i:020d}" for i in range(len(vectors))]
        started = time.perf_counter()
        index.load(persons, faces, vectors)
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    index.recount()
    index.publish(1, rows)
    return index, seconds + time.perf_counter() - started


def make_probes(rows: int, dimension: int) -> np.ndarray:
    """Half are noisy copies of enrolled vectors (cosine about 0.6), half are strangers. float32 [PROBES, dimension]."""
    rng = np.random.default_rng(2)
    _, first = next(templates(rows, dimension))
    noise = rng.standard_normal((PROBES, dimension), np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    known = first[rng.integers(0, len(first), PROBES // 2)]
    probes = np.concatenate([0.6 * known + 0.8 * noise[: PROBES // 2], noise[PROBES // 2 :]])
    return probes / np.linalg.norm(probes, axis=1, keepdims=True)


def exact(rows: int, dimension: int, probes: np.ndarray) -> np.ndarray:
    """The DEPTH best rows of each probe by a plain float32 product, int64 [PROBES, DEPTH], best first."""
    scores, best = np.empty((len(probes), 0), np.float32), np.empty((len(probes), 0), np.int64)
    for start, vectors in templates(rows, dimension):
        scores = np.concatenate([scores, probes @ vectors.T], axis=1)
        best = np.concatenate(
            [best, np.broadcast_to(np.arange(start, start + len(vectors)), (len(probes), len(vectors)))], 1
        )
        order = np.argsort(-scores, axis=1)[:, :DEPTH]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return best


def recall(snapshot: Snapshot, probes: np.ndarray, truth: np.ndarray) -> float:
    """The share of the exact DEPTH nearest that the search returned."""
    found = snapshot.search(probes, DEPTH)
    pairs = zip(found, truth, strict=True)
    return float(
        np.mean(
            [len({hit.person_id for hit in hits} & {person(r) for r in rows}) / DEPTH for hits, rows in pairs]
        )
    )


def measure(rows: int, dimension: int, seconds: float) -> dict[str, object]:
    probes = make_probes(rows, dimension)
    process = psutil.Process()
    before = process.memory_info().rss
    index, built = build(rows, dimension)
    grown = process.memory_info().rss - before
    snapshot = index.snapshot
    position = iter(range(10**9))
    calls = {
        "one": lambda: snapshot.search(probes[next(position) % PROBES][None], 1),
        "batch": lambda: snapshot.search(probes[:BATCH], 1),
        "add": lambda: _add_one(index, probes[0], next(position)),
    }
    once = sum(float(taken.wall.min()) for taken in interleaved(calls, 2, warm_up=1).values())
    taken = interleaved(calls, max(20, min(2000, int(seconds / once))))
    one, batch, add = (taken[name].row() for name in ("one", "batch", "add"))
    return {
        "templates": rows,
        "dimension": dimension,
        "build_s": round(built, 2),
        "search_p50_ms": one["p50_ms"],
        "search_p99_ms": one["p99_ms"],
        "search_cpu_ms": one["cpu_ms"],
        f"batch_of_{BATCH}_p50_ms": batch["p50_ms"],
        f"batch_of_{BATCH}_p99_ms": batch["p99_ms"],
        "add_and_publish_p50_ms": add["p50_ms"],
        "bytes_per_template": round(grown / rows),
        "of_which_vector": 4 * dimension,
        f"recall_at_{DEPTH}": round(recall(snapshot, probes, exact(rows, dimension, probes)), 4),
    }


def _add_one(index: GalleryIndex, vector: np.ndarray, number: int) -> None:
    index.add([f"new_{number:020d}"], [f"fac_n{number:019d}"], vector[None])
    index.publish(index.snapshot.revision + 1, index.snapshot.size + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--seconds", type=float, default=15, help="of searching, for each row")
    arguments = parser.parse_args()
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for dimension in arguments.dimensions:
        for size in arguments.sizes:
            with spawn.Pool(1) as alone:
                rows.append(alone.apply(measure, (size, dimension, arguments.seconds)))
            print(rows[-1], flush=True)
    write_result(
        "gallery",
        "What does an exact search cost, and does it find what float32 says? (search: the best person for one face)",
        rows,
        libraries=versions("faiss-cpu", "numpy"),
        note="a snapshot is taken before the additions, so searches see exactly `templates` rows",
    )


if __name__ == "__main__":
    main()
