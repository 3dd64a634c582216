"""``fastload resolve MODEL``: where it is; the path is all of the output."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import fastload
from fastload.cli.model import add_name, add_settings, parse_settings
from fastload.cli.text import show_json

if TYPE_CHECKING:
    import argparse

HELP = "say where MODEL is, without fetching anything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name, and the settings."""
    add_name(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the snapshot's folder, or the facts as JSON."""
    found = fastload.resolve(arguments.model, revision=arguments.revision, options=parse_settings(arguments))
    print(show_json({"schema": 1, **asdict(found)}) if arguments.as_json else found.path)
