"""What can be typed after `facet`, and what the exit codes mean.

Rule: every setting is a flag of `serve`, made from `Settings` itself, so that none can be forgotten. Nothing heavy is
imported before a command is chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from service.config import Settings, load_settings

EXIT_DONE: Final = 0
EXIT_PARTLY: Final = 1  # done, but something in it was turned down
EXIT_USAGE: Final = 2  # wrong arguments, settings or bundle
EXIT_UNREACHABLE: Final = 3  # no service answers there, or it is not ready
EXIT_REFUSED: Final = 4  # the service said no

EPILOG: Final = """exit codes:
  0  done
  1  done, but something in it was turned down (a person without a face, a picture that cannot be read)
  2  wrong arguments, settings or bundle
  3  no service answers, or it is not ready
  4  the service refused, e.g. a wrong key or an unknown gallery

Settings come from flags of serve, the environment (FACET_HTTP_PORT …) or facet.toml in the working folder."""

_SECRET: Final = "admin_key"  # a flag is seen by everyone in the list of processes


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The chosen command; `.run(namespace)` runs it and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="facet",
        description="Facet recognises faces, with a stated error rate.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"facet {_version()}")
    commands = parser.add_subparsers(metavar="command", required=True)
    _serve(commands)
    _enroll(commands)
    _identify(commands)
    _keys(commands)
    _maintenance(commands)
    return parser.parse_args(arguments)


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The settings, with the flags that were given. Raises `StartFailed`."""
    given = {name: value for name, value in vars(chosen).items() if name in Settings.model_fields}
    return load_settings(**given)


def _serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="serve REST and gRPC in the foreground")
    for name, field in Settings.model_fields.items():
        if name != _SECRET:
            flag, told = f"--{name.replace('_', '-')}", f"FACET_{name.upper()}"
            default = "" if field.default is None else f" (default {field.default})"
            serve.add_argument(flag, dest=name, metavar="…", help=told + default)
    serve.set_defaults(run=_run_serve)


def _run_serve(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    from service.server import serve

    serve(settings)
    return EXIT_DONE


def _enroll(commands: Any) -> None:
    enroll = commands.add_parser("enroll", help="enrol people from a folder of pictures for each")
    enroll.add_argument("folder", metavar="DIR", type=Path, help="DIR/<person>/<picture>.jpg|.png|.webp")
    enroll.add_argument("--gallery", default="default")
    enroll.add_argument(
        "--force", action="store_true", help="enrol a face although it matches another person"
    )
    enroll.add_argument("--parallel", type=_at_least_one, default=4, help="people at a time (default 4)")
    _add_service(enroll)
    enroll.set_defaults(run=_run_enroll)


def _run_enroll(chosen: argparse.Namespace) -> int:
    from service.cli.enroll import run

    return run(chosen)


def _identify(commands: Any) -> None:
    identify = commands.add_parser("identify", help="say who is in pictures")
    identify.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    identify.add_argument("--gallery", default="default")
    rate = identify.add_mutually_exclusive_group()
    rate.add_argument("--fpir", type=float, help="target false positive identification rate (default 0.01)")
    rate.add_argument("--threshold", type=float, help="cosine similarity, instead of a target rate")
    identify.add_argument("--limit", type=int, default=1, help="persons a face (default 1)")
    identify.add_argument("--faces", choices=("largest", "all"), default="largest")
    identify.add_argument("--json", action="store_true", help="one JSON answer a line")
    _add_service(identify)
    identify.set_defaults(run=_run_identify)


def _run_identify(chosen: argparse.Namespace) -> int:
    from service.cli.identify import run

    return run(chosen)


def _keys(commands: Any) -> None:
    from service.cli import keys

    acts = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        metavar="create|list|revoke", required=True
    )
    create = acts.add_parser("create", help="a new key; it is shown this once")
    create.add_argument("name")
    create.add_argument("--scopes", required=True, help="e.g. identify or enroll,identify")
    create.set_defaults(run=keys.create)
    listed = acts.add_parser("list", help="every key, without its secret")
    listed.set_defaults(run=keys.show)
    revoke = acts.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id")
    revoke.set_defaults(run=keys.revoke)
    for act in (create, listed, revoke):
        _add_service(act)


def _maintenance(commands: Any) -> None:
    from service.cli import maintenance

    check = commands.add_parser("bundle", help="look at a bundle").add_subparsers(
        metavar="check", required=True
    )
    of = check.add_parser("check", help="verify every file of a bundle and say what it is")
    of.add_argument("folder", metavar="DIR", type=Path)
    of.set_defaults(run=maintenance.check_bundle)
    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    _add_data(migrate)
    migrate.set_defaults(run=maintenance.migrate)
    gallery = commands.add_parser("gallery", help="galleries").add_subparsers(
        metavar="rebuild", required=True
    )
    rebuild = gallery.add_parser(
        "rebuild", help="build the index from the database and compare (no service needed)"
    )
    rebuild.add_argument("gallery", nargs="?", help="one gallery instead of all")
    rebuild.add_argument(
        "--drop-foreign-faces",
        action="store_true",
        help="delete faces that were enrolled with another model; persons stay and can be enrolled again",
    )
    _add_data(rebuild)
    rebuild.set_defaults(run=maintenance.rebuild)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="of the service (default: FACET_HTTP_HOST and FACET_HTTP_PORT)")
    parser.add_argument(
        "--key", help="API key (default: FACET_KEY, FACET_ADMIN_KEY, then admin.key in the data dir)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="open the data dir here instead of asking a service"
    )
    _add_data(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    for name in ("data_dir", "database_url", "bundle"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar="…", help=f"FACET_{name.upper()}"
        )


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _version() -> str:
    try:
        return version("facet-recognition")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "(not installed)"
