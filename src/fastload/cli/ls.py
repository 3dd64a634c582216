"""``fastload ls``: what is kept on which tier."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fastload._fetch.keep.snapshots import snapshots
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.errors import escaped

if TYPE_CHECKING:
    import argparse

    from fastload._fetch.keep.facts import SnapshotFacts

HELP = "list the snapshots on every tier: size, age, state, pinned"
_COMMIT_SHOWN = 12
_DETAILS_SHOWN = 3
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing but the settings."""
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or the facts as JSON; tiers that did not answer are named on stderr."""
    listing = snapshots(options=parse_settings(arguments))
    for tier, reason in listing.unavailable:
        print(f"fastload: {escaped(tier)} could not be asked: {escaped(reason)}", file=sys.stderr)
    if arguments.as_json:
        print(show_json(listing.to_dict()))
        return
    heading = ("tier", "name", "commit", "size", "age", "state", "pinned")
    print(show_table([heading, *(_show(facts) for facts in listing)]))


def _show(facts: SnapshotFacts) -> tuple[str, ...]:
    name = facts.repo if not facts.revisions else f"{facts.repo} ({', '.join(facts.revisions)})"
    return (
        escaped(facts.tier),
        escaped(name),
        facts.commit[:_COMMIT_SHOWN] if facts.commit else "-",
        show_bytes(facts.bytes),
        show_age(facts.age_s),
        escaped(_show_state(facts)),
        "pinned" if facts.pinned else "",
    )


def _show_state(facts: SnapshotFacts) -> str:
    if not facts.details:
        return facts.state
    between = ", " if facts.state == "damaged" else "; "  # names of files, or phrases
    return f"{facts.state}: {between.join(facts.details[:_DETAILS_SHOWN])}"


def show_age(age_s: float) -> str:
    """``3 d``."""
    for unit_s, unit in _UNITS:
        if age_s >= unit_s:
            return f"{int(age_s // unit_s)} {unit}"
    return f"{int(age_s)} s"
