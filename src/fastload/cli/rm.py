"""``fastload rm NAME…``: remove snapshots from the local tier."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastload._fetch.snapshots import remove
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.text import show_bytes
from fastload.errors import FastloadError

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
    removed = []
    failure: FastloadError | None = None
    for name in arguments.names:
        try:
            gone = remove(name, options=options)
        except FastloadError as error:
            if failure is not None:
                print(f"fastload: {error}", file=sys.stderr)
            failure = failure or error
            continue
        removed.append(gone)
        if not arguments.as_json:
            print(f"removed {gone.repo}@{gone.commit}: {show_bytes(gone.freed_bytes)} freed")
    if failure is not None:
        raise failure
    if arguments.as_json:
        print(json.dumps({"schema": 1, "removed": [asdict(each) for each in removed]}))
