"""``fastload prune``: bring what fastload keeps on the local tier down to a size."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fastload._fetch.keep.snapshots import prune
from fastload._settings.values import parse_size
from fastload.cli.flag import parsed_by
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json

if TYPE_CHECKING:
    import argparse

    from fastload._fetch.keep.snapshots import Pruned

_DID = ("reclaimed", "keeps")
_WOULD = ("would be reclaimed", "would keep")
HELP = "remove leftovers, then the least recently used of what fastload brought, down to a size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The size."""
    parser.add_argument(
        "--max-bytes", type=parsed_by(parse_size), metavar="SIZE", help="such as 500Gi; default: local_max_bytes"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prune, and say what that did."""
    pruned = prune(max_bytes=arguments.max_bytes, dry_run=arguments.dry_run, options=parse_settings(arguments))
    if arguments.as_json:
        print(show_json({"schema": 1, "dry_run": arguments.dry_run, **asdict(pruned)}))
        return
    done = "would remove" if arguments.dry_run else "removed"
    for each in pruned.removed:
        print(f"{done} {each.repo}@{each.commit}: {show_bytes(each.freed_bytes)} freed")
    print(_summarise(pruned, *(_WOULD if arguments.dry_run else _DID)))


def _summarise(pruned: Pruned, reclaimed: str, keeps: str) -> str:
    kept = f"fastload {keeps} {show_bytes(pruned.kept_bytes)} on the local tier"
    leftovers = f"{show_bytes(pruned.reclaimed_bytes)} of leftovers {reclaimed}"
    if pruned.max_bytes is None:
        return f"{leftovers}; {kept}, and no size was given to bring that down to"
    if pruned.kept_bytes > pruned.max_bytes:
        why = "the rest is pinned, in use, was used in the last ten minutes, or is not this user's to remove"
        return f"{leftovers}; {kept}, more than {show_bytes(pruned.max_bytes)}: {why}"
    return f"{leftovers}; {kept}"
