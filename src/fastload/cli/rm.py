"""``fastload rm NAME…``: remove snapshots from the local tier."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastload._fetch.keep.snapshots import remove
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.several import try_each
from fastload.cli.text import show_bytes, show_json

if TYPE_CHECKING:
    import argparse

HELP = "remove snapshots from the local tier, whoever brought them; not what is pinned or in use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Names."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="org/name, org/name@revision or an alias")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Try all of them; the first that failed decides how it ends."""
    options = parse_settings(arguments)

    def remove_one(name: str) -> dict[str, Any]:
        gone = remove(name, options=options)
        if not arguments.as_json:
            print(f"removed {gone.repo}@{gone.commit}: {show_bytes(gone.freed_bytes)} freed")
        return asdict(gone)

    facts = try_each(arguments.names, remove_one, "removed")
    if arguments.as_json:
        print(show_json(facts))
