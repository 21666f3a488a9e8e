"""The load generator: keep-alive connections in one process of its own, each sending its next request as soon as the
last is answered.

The same process, sending the same bytes, loads the service and the bare loops, so its own cost stands on both sides.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

HEAD_END = b"\r\n\r\n"
BOUNDARY = "facet-benchmark"
Address = tuple[str, int]


@dataclass
class Outcome:
    """What came back: answers by status, how many said match, seconds of each (float64), and what it took."""

    statuses: Counter[int] = field(default_factory=Counter)
    matches: int = 0
    latencies: np.ndarray = field(default_factory=lambda: np.empty(0))
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of the generator
    server_cpu_s: float = 0.0  # of what it loaded; filled in by whoever knows its processes
    first_refusal: str = ""

    @property
    def rate(self) -> float:
        """Pictures answered with 200, a second."""
        return self.statuses[200] / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds a picture, of both sides together: what decides the rate when no core is idle."""
        return (self.cpu_s + self.server_cpu_s) / self.statuses[200] * 1e3


def multipart(pictures: Sequence[bytes], name: str, fields: dict[str, str]) -> tuple[str, bytes]:
    """(content type, body) of a form with each picture under `name`."""
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    for picture in pictures:
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"; filename="picture"\r\n\r\n'
        parts.append(head.encode() + picture + b"\r\n")
    return f"multipart/form-data; boundary={BOUNDARY}", b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def identify_request(picture: bytes, key: str) -> bytes:
    """A whole HTTP/1.1 request, ready to be written."""
    content_type, body = multipart([picture], "image", {})
    head = (
        f"POST /v1/identify HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def picture_of(request: bytes) -> bytes:
    """The picture inside `identify_request`: what a bare loop has to work on."""
    start = request.index(HEAD_END, request.index(HEAD_END) + 4) + 4
    return request[start : request.rindex(b"\r\n--" + BOUNDARY.encode())]


def enrol(url: str, key: str, pictures: Sequence[bytes], name: str) -> dict[str, object]:
    """Enrol one person; the service's answer."""
    content_type, body = multipart(pictures, "images", {"name": name, "force": "true"})
    headers = {"x-api-key": key, "content-type": content_type, "x-timeout-ms": "60000"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/enroll", body, headers)) as answer:
        return dict(json.load(answer))


def run(addresses: Sequence[Address], requests: Sequence[bytes], connections: int, seconds: float) -> Outcome:
    """Load `addresses` from a process of its own until `seconds` have passed."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        return alone.apply(_generate, (addresses, requests, connections, seconds, None))


def run_count(
    addresses: Sequence[Address], requests: Sequence[bytes], connections: int, count: int
) -> Outcome:
    """Send `count` requests, each of `requests` in turn."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        return alone.apply(_generate, (addresses, requests, connections, 1e9, count))


def _generate(
    addresses: Sequence[Address],
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    count: int | None,
) -> Outcome:
    import uvloop

    return uvloop.run(_load(addresses, requests, connections, seconds, count))


async def _load(
    addresses: Sequence[Address],
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    count: int | None,
) -> Outcome:
    outcome, latencies, sent = Outcome(), [], iter(range(count if count is not None else 10**12))
    streams = [await asyncio.open_connection(*addresses[i % len(addresses)]) for i in range(connections)]
    started, cpu = time.perf_counter(), time.process_time()
    deadline = started + seconds

    async def keep_sending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while time.perf_counter() < deadline and (number := next(sent, None)) is not None:
            begun = time.perf_counter()
            writer.write(requests[number % len(requests)])
            status, body = await _answer(reader)
            latencies.append(time.perf_counter() - begun)
            outcome.statuses[status] += 1
            outcome.matches += b'"decision":"match"' in body.replace(b": ", b":")[:4000]
            if status >= 400 and not outcome.first_refusal:
                outcome.first_refusal = body[:300].decode(errors="replace")

    await asyncio.gather(*(keep_sending(*stream) for stream in streams))
    outcome.wall_s, outcome.cpu_s = time.perf_counter() - started, time.process_time() - cpu
    outcome.latencies = np.array(latencies)
    for _, writer in streams:
        writer.close()
    return outcome


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(HEAD_END)).lower()
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return int(head[9:12]), await reader.readexactly(length)
