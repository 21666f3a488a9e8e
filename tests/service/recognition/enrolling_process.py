"""A process that enrols and deletes in a loop and kills itself at a named step of one of its writes.

Run as `python enrolling_process.py URL STEP WRITES`; every answered write is one JSON line on standard
output.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # started by path, outside of pytest

from service.recognition.gallery_sync import Added, Idempotency, PersonRef
from tests.service.recognition.enrolled import face, opened


def say(**line: object) -> None:
    os.write(1, (json.dumps(line) + "\n").encode())  # at once: a killed process flushes nothing


async def main(url: str, step: str, writes: int) -> None:
    passed = 0

    def fault(name: str) -> None:
        nonlocal passed
        passed += name == step
        if passed == writes:
            os.kill(os.getpid(), signal.SIGKILL)

    async with opened(url, fault=fault) as sync:
        say(loaded=sync.snapshot("default").templates)
        number = 0
        while True:
            number += 1
            seed = os.getpid() * 1000 + number
            once = Idempotency("p", str(seed), "d", lambda added: {"person": added.person.id})
            ref = PersonRef(external_id=str(seed))
            say(began=ref.external_id, faces=2)
            added = await sync.add_faces("default", ref, [face(seed), face(-seed % 2**31)], idempotency=once)
            assert isinstance(added, Added)
            say(enrolled=added.person.id, faces=[of.id for of in added.faces], external_id=ref.external_id)
            if number % 2 == 0:
                say(began_delete=added.person.id)
                await sync.delete_person("default", added.person.id)
                say(deleted=added.person.id)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
