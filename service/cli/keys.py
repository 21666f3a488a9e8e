"""`facet keys create|list|revoke`.

Rule: a key is printed alone on standard output, so that `KEY=$(facet keys create …)` works, and is never kept.
"""

from __future__ import annotations

import argparse
import sys

from service.cli.arguments import EXIT_DONE


def create(chosen: argparse.Namespace) -> int:
    """Make a key; its id goes to standard error, the key to standard output."""
    from service.cli.client import Client, transport_of

    scopes = [scope for scope in chosen.scopes.replace(",", " ").split() if scope]
    with transport_of(chosen) as transport:
        made = Client(transport).create_key(chosen.name, scopes)
    print(f"key {made['id']} ({', '.join(made['scopes'])}); it is shown this once:", file=sys.stderr)
    print(made["key"])
    return EXIT_DONE


def show(chosen: argparse.Namespace) -> int:
    """A table of the keys."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from service.cli.client import Client, transport_of

    with transport_of(chosen) as transport:
        keys = Client(transport).keys()
    table = Table("id", "name", "scopes", "created", "last used", "revoked")
    for key in keys:
        cells = (
            key["id"],
            key["name"],
            " ".join(key["scopes"]),
            key["created"],
            key["last_used"],
            key["revoked"],
        )
        table.add_row(*(Text(cell or "-") for cell in cells))
    Console().print(table)
    return EXIT_DONE


def revoke(chosen: argparse.Namespace) -> int:
    """Refuse a key from now on."""
    from service.cli.client import Client, transport_of

    with transport_of(chosen) as transport:
        Client(transport).revoke_key(chosen.id)
    print(f"key {chosen.id} is revoked")
    return EXIT_DONE


def _minute(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ")
