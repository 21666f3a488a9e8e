"""`facet identify IMAGE…`: one line a picture, or one JSON answer a line.

Rule: the line says what the answer says and adds no judgement of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson

from service.cli.arguments import EXIT_DONE, EXIT_PARTLY
from service.cli.client import Client, Refused, transport_of
from service.cli.transport import Json
from service.errors import StartFailed

# Refusals of one picture; the others end the command.
OF_THE_PICTURE = frozenset({"missing_image", "unsupported_media", "invalid_image", "too_large"})


def run(chosen: argparse.Namespace) -> int:
    """Identify every picture; `EXIT_PARTLY` when one of them could not be read."""
    missing = [path for path in chosen.images if not path.is_file()]
    if missing:
        raise StartFailed(f"{missing[0]} is not a file")
    with transport_of(chosen) as transport:
        client = Client(transport)
        answered = [_identify(client, path, chosen) for path in chosen.images]
    return EXIT_DONE if all(answered) else EXIT_PARTLY


def _identify(client: Client, path: Path, chosen: argparse.Namespace) -> bool:
    try:
        answer = client.identify(
            path.read_bytes(),
            gallery=chosen.gallery,
            fpir=chosen.fpir,
            threshold=chosen.threshold,
            limit=chosen.limit,
            faces=chosen.faces,
        )
    except Refused as refused:
        if refused.code not in OF_THE_PICTURE:
            raise
        print(
            _json(path, {"error": {"code": refused.code}}) if chosen.json else f"{path}: {refused.code}",
            flush=True,
        )
        return False
    print(_json(path, answer) if chosen.json else "\n".join(lines_of(path, answer)), flush=True)
    return True


def lines_of(path: Path, answer: Json) -> list[str]:
    """A line for each searched face, or one that says that there is none."""
    rate = _rate(answer)
    return [f"{path}: {_face(face)}{rate}" for face in answer["faces"]] or [f"{path}: {answer['decision']}"]


def _face(face: Json) -> str:
    if not face["matches"]:
        return str(face["decision"])
    found = ", ".join(f"{_name(match['person'])} {match['similarity']:.3f}" for match in face["matches"])
    return f"{face['decision']} {found}"


def _name(person: Json) -> str:
    return str(person["name"] or person["external_id"] or person["id"])


def _rate(answer: Json) -> str:
    if answer["threshold"] is None:
        return "  (the gallery is empty)"
    fpir = "" if answer["fpir"] is None else f", FPIR {answer['fpir']:.2g}"
    return (
        f"  (threshold {answer['threshold']:.3f}{fpir}{', extrapolated' if answer['extrapolated'] else ''})"
    )


def _json(path: Path, answer: Json) -> str:
    return orjson.dumps({"file": str(path), **answer}).decode()
