"""The command line against a running service, and without one: what it prints and which exit code it leaves."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import structlog

from service import server
from service.cli import main
from service.cli.arguments import EXIT_DONE, EXIT_PARTLY, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, parse
from service.cli.enroll import REQUEST_PICTURES, _requests, people_in
from service.config import Settings, load_settings
from service.errors import StartFailed
from tests.synthetic_bundle import blank, draw_person

KEY = "an admin key of the tests, long enough to be one"
Facet = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def silence() -> Iterator[None]:
    """The service's log lines, which share this process's standard output until somebody configures them."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> Iterator[str]:
    """A service in a thread of its own, with its two doors on free ports."""
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("served"), bundle=synthetic_bundle, admin_key=KEY,
        http_port=0, grpc_port=0, inference_lanes=1,
    )  # fmt: skip
    loop, out = asyncio.new_event_loop(), io.StringIO()
    failed: list[BaseException] = []
    stop: list[Callable[[], None]] = []

    def run() -> None:
        async def serve() -> None:
            asked = asyncio.Event()
            stop.append(asked.set)
            await server.run(settings, out, asked)

        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while "next" not in out.getvalue():
        assert not failed, failed
        thread.join(0.05)
    found = re.search(r"REST (\S+)", out.getvalue())
    assert found is not None
    yield found[1]
    loop.call_soon_threadsafe(stop[0])
    thread.join(30)
    loop.close()


@pytest.fixture
def facet(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Facet:
    """Runs `facet …` against the service: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FACET_KEY", KEY)
    monkeypatch.setenv("FACET_HTTP_PORT", url.rpartition(":")[2])

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        told = capsys.readouterr()
        assert "Traceback" not in told.err + told.out
        return code, told.out, told.err

    return run


def draw(folder: Path, person: str, identity: int, *variations: int) -> None:
    (folder / person).mkdir(parents=True, exist_ok=True)
    for variation in variations:
        cv2.imwrite(str(folder / person / f"{variation}.jpg"), draw_person(identity, variation)[..., ::-1])


# ---- enroll and identify


def test_people_are_enrolled_and_identified(facet: Facet, tmp_path: Path) -> None:
    draw(tmp_path / "people", "ada", 1, 1, 2)
    draw(tmp_path / "people", "ben [red]", 2, 1)
    cv2.imwrite(str(tmp_path / "people" / "ada" / "wall.png"), blank())
    (tmp_path / "people" / "ada" / "broken.jpg").write_bytes(b"not a picture at all")
    draw(tmp_path / "probes", "x", 1, 7)

    code, out, _ = facet("enroll", "people")
    assert (code, "2 of 2 people are in gallery default; 3 faces added, 2 rejected" in out) == (
        EXIT_DONE,
        True,
    ), out
    assert re.search(r"ada.*broken\.jpg.*invalid_image", out)
    assert re.search(r"ada.*wall\.png.*no_face", out)

    code, out, _ = facet("identify", "probes/x/7.jpg", "people/ada/wall.png")
    assert code == EXIT_DONE
    assert re.search(r"^probes/x/7\.jpg: match ada 0\.\d{3}  \(threshold \S+, FPIR 0\.01.*\)$", out, re.M)
    assert "people/ada/wall.png: no_face" in out

    code, out, _ = facet("enroll", "people")
    assert (code, "0 faces added" in out, out.count("duplicate")) == (EXIT_DONE, True, 3), out


def test_identify_tells_json_a_line(facet: Facet, tmp_path: Path) -> None:
    draw(tmp_path, "x", 40, 1)
    code, out, _ = facet("identify", "--json", "--faces", "all", "x/1.jpg")

    (answer,) = [json.loads(line) for line in out.splitlines()]
    assert (code, answer["file"], answer["decision"]) == (EXIT_DONE, "x/1.jpg", "no_match")


def test_a_person_without_a_face_is_reported_and_the_others_are_enrolled(
    facet: Facet, tmp_path: Path
) -> None:
    draw(tmp_path / "people", "dora", 11, 1)
    (tmp_path / "people" / "nobody").mkdir()
    cv2.imwrite(str(tmp_path / "people" / "nobody" / "wall.png"), blank())

    code, out, _ = facet("enroll", "people")

    assert (code, "1 of 2 people" in out) == (EXIT_PARTLY, True), out


def test_a_name_that_belongs_to_somebody_else_does_not_stop_the_others(facet: Facet, tmp_path: Path) -> None:
    draw(tmp_path / "first", "eve", 12, 1)
    assert facet("enroll", "first")[0] == EXIT_DONE
    # the same face in another folder is another person's: rejected as a conflict of identity
    draw(tmp_path / "second", "mallory", 12, 2)
    draw(tmp_path / "second", "olga", 13, 1)

    code, out, _ = facet("enroll", "second")

    assert (code, "1 of 2 people" in out) == (EXIT_PARTLY, True), out
    assert re.search(r"mallory.*identity_conflict", out)
    assert facet("enroll", "second", "--force")[0] == EXIT_DONE


def test_an_unreadable_picture_is_partly_done(facet: Facet, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")

    code, out, _ = facet("identify", "text.jpg")

    assert (code, out.strip()) == (EXIT_PARTLY, "text.jpg: unsupported_media")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("enroll", "."), EXIT_USAGE, "no folder with pictures"),
        (("enroll", "nowhere"), EXIT_USAGE, "nowhere is not a folder"),
        (("identify", "nowhere.jpg"), EXIT_USAGE, "nowhere.jpg is not a file"),
        (("identify", "x/1.jpg", "--gallery", "nowhere"), EXIT_REFUSED, "gallery_not_found"),
        (("identify", "x/1.jpg", "--fpir", "1e-30"), EXIT_REFUSED, "fpir_unsupported"),
        (("identify", "x/1.jpg", "--key", "fk_wrong"), EXIT_REFUSED, "unauthenticated"),
        (("identify", "x/1.jpg", "--url", "http://127.0.0.1:9"), EXIT_UNREACHABLE, "http://127.0.0.1:9"),
        (("identify", "x/1.jpg", "--url", "ftp://x"), EXIT_UNREACHABLE, "ftp://x"),
        (("enroll", "people", "--offline", "--url", "http://x"), EXIT_USAGE, "--offline"),
        (("keys", "create", "k", "--scopes", "everything"), EXIT_REFUSED, "invalid_parameter"),
        (("keys", "revoke", "nothing"), EXIT_REFUSED, "api_key_not_found"),
        (("bundle", "check", "nowhere"), EXIT_USAGE, "nowhere: no such folder"),
        (("gallery", "rebuild", "--bundle", "nowhere"), EXIT_USAGE, "FACET_BUNDLE"),
        (("migrate", "--database-url", "nonsense"), EXIT_USAGE, "FACET_DATABASE_URL"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_and_a_code(
    facet: Facet, tmp_path: Path, arguments: Any, code: int, told: str
) -> None:
    draw(tmp_path, "x", 1, 1)
    draw(tmp_path / "people", "ada", 1, 1)
    if arguments == ("enroll", "."):
        arguments = ("enroll", "x")

    failed, _, err = facet(*arguments)

    assert failed == code, err
    (line,) = err.strip().splitlines()
    assert line.startswith("facet: ")
    assert told in line


# ---- keys


def test_a_key_is_made_listed_used_and_revoked(facet: Facet, tmp_path: Path) -> None:
    draw(tmp_path, "x", 1, 1)
    code, key, told = facet("keys", "create", "front door", "--scopes", "identify,detect")
    key_id = re.search(r"key (\S+) \(detect, identify\)", told)
    assert key_id is not None
    assert (code, key.strip().startswith("fk_")) == (EXIT_DONE, True)

    assert facet("identify", "x/1.jpg", "--key", key.strip())[0] == EXIT_DONE
    assert facet("enroll", ".", "--key", key.strip())[0] == EXIT_REFUSED
    code, listed, _ = facet("keys", "list")
    assert (code, "front door" in listed, key.strip() in listed) == (EXIT_DONE, True, False)

    assert facet("keys", "revoke", key_id[1])[0] == EXIT_DONE
    assert facet("identify", "x/1.jpg", "--key", key.strip())[0] == EXIT_REFUSED


# ---- without a service


@pytest.fixture
def alone(facet: Facet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, synthetic_bundle: Path) -> Facet:
    """`facet …` with a data dir of its own and no service."""
    monkeypatch.delenv("FACET_KEY")
    monkeypatch.setenv("FACET_HTTP_PORT", "9")
    monkeypatch.setenv("FACET_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FACET_BUNDLE", str(synthetic_bundle))
    monkeypatch.setenv("FACET_INFERENCE_LANES", "1")
    monkeypatch.setattr(
        "service.telemetry.logging.configure", lambda *_: None
    )  # it would take the test run's own log
    return facet


def test_offline_opens_the_data_dir_itself(alone: Facet, tmp_path: Path) -> None:
    draw(tmp_path / "people", "ada", 1, 1, 2)
    draw(tmp_path, "x", 1, 7)

    assert alone("identify", "x/7.jpg")[0] == EXIT_UNREACHABLE
    code, out, _ = alone("enroll", "people", "--offline")
    assert (code, "1 of 1 people are in gallery default; 2 faces added" in out) == (EXIT_DONE, True), out
    assert "match ada" in alone("identify", "x/7.jpg", "--offline")[1]
    assert alone("keys", "create", "k", "--scopes", "identify", "--offline")[1].startswith("fk_")
    assert not (tmp_path / "data" / "admin.key").exists()

    code, out, _ = alone("gallery", "rebuild")
    assert (code, out.strip()) == (EXIT_DONE, "default: rebuilt, 1 persons, 2 faces, revision 1")
    code, _, err = alone("gallery", "rebuild", "nowhere")
    assert (code, "gallery_not_found" in err) == (EXIT_REFUSED, True)


def test_migrate_makes_the_database(alone: Facet, tmp_path: Path) -> None:
    assert alone("migrate")[:2] == (EXIT_DONE, "the database is up to date\n")
    assert list((tmp_path / "data").glob("*.sqlite3"))
    assert alone("migrate")[0] == EXIT_DONE


def test_bundle_check_tells_a_whole_bundle_from_a_broken_one(
    alone: Facet, tmp_path: Path, synthetic_bundle: Path
) -> None:
    code, out, _ = alone("bundle", "check", str(synthetic_bundle))
    assert (code, "whole" in out, "embedder.onnx" in out) == (EXIT_DONE, True, True)

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in synthetic_bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = bytearray((copy / "embedder.onnx").read_bytes())
    content[100] ^= 1
    (copy / "embedder.onnx").write_bytes(content)
    code, _, err = alone("bundle", "check", str(copy))
    assert (code, "embedder.onnx differs" in err) == (EXIT_USAGE, True)


# ---- the parts


def test_every_setting_is_a_flag_of_serve_but_the_secret() -> None:
    given = parse(["serve", "--http-port", "1234", "--backend", "openvino", "--max-lag-s", "30"])

    assert (given.http_port, given.backend, given.max_lag_s) == ("1234", "openvino", "30")
    assert {name for name in Settings.model_fields if not hasattr(given, name)} == {"admin_key"}


def test_the_folder_of_people_is_read_by_name_and_suffix(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "b/1.png",
        "b/notes.txt",
        "a/x.webp",
        ".hidden/1.jpg",
        "empty/readme.md",
        "stray.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    found = people_in(tmp_path)

    assert {person: [path.name for path in pictures] for person, pictures in found.items()} == {
        "a": ["x.webp"],
        "b": ["1.png", "2.JPG"],
    }
    with pytest.raises(StartFailed):
        people_in(tmp_path / "empty")


def test_requests_are_bounded_in_pictures_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [tmp_path / f"{n:02}.jpg" for n in range(2 * REQUEST_PICTURES + 1)]
    for picture in pictures:
        picture.write_bytes(bytes(10))

    assert [len(some) for some in _requests(pictures)] == [REQUEST_PICTURES, REQUEST_PICTURES, 1]
    monkeypatch.setattr("service.cli.enroll.REQUEST_BYTES", 25)
    assert {len(some) for some in _requests(pictures)} == {2, 1}
    assert [path for some in _requests(pictures) for path, _ in some] == pictures
