"""``fastload verify NAME``: check all that is stored of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastload._fetch.verify import verify
from fastload.cli.model import add_name, add_settings, parse_settings
from fastload.cli.text import show_bytes, show_table
from fastload.errors import escaped

if TYPE_CHECKING:
    import argparse

    from fastload._fetch.verify import FileVerdict, Verification

HELP = "check all that is stored of MODEL against the best evidence there is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to check, and what to do about it."""
    add_name(parser)
    parser.add_argument("--repair", action="store_true", help="mend blocks that are wrong, from other tiers")
    parser.add_argument("--record", action="store_true", help="write a manifest where there is none")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="check only these files")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print what was found of each file."""
    found = verify(
        arguments.model,
        revision=arguments.revision,
        repair=arguments.repair,
        record=arguments.record,
        include=arguments.include,
        options=parse_settings(arguments),
    )
    print(json.dumps(found.to_dict()) if arguments.as_json else _show(found))


def _show(found: Verification) -> str:
    rows = [("file", "bytes", "evidence", "verdict")]
    rows += [(escaped(f.path), show_bytes(f.nbytes), f.evidence, _verdict(f)) for f in found.files]
    notes = [f"{found.path} ({found.tier}): evidence {found.evidence}"]
    notes += ["a manifest was recorded"] if found.recorded else []
    return "\n".join([show_table(rows), "", *notes])


def _verdict(file: FileVerdict) -> str:
    if file.findings:
        return f"{len(file.findings)} blocks repaired"
    return "not known" if file.evidence == "none" else "ok"
