"""``fastload pin NAME``: keep a snapshot from being evicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.keep.snapshots import pin
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.text import show_json

if TYPE_CHECKING:
    import argparse

HELP = "keep a snapshot of the local tier from being evicted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A name."""
    parser.add_argument("model", metavar="NAME", help="org/name, org/name@revision or an alias")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do it, and say what it was done to."""
    snapshot = str(pin(arguments.model, options=parse_settings(arguments)))
    print(show_json({"schema": 1, "pinned": snapshot}) if arguments.as_json else f"pinned {snapshot}")
