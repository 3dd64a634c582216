"""``fastload verify NAME``: check all that is stored of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload.cli.flag import add_progress
from fastload.cli.model import add_name, add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.errors import escaped
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse

    from fastload._fetch.verify.checking import FileVerdict
    from fastload._fetch.verify.verification import Verification
    from fastload._finding import Finding

HELP = "check all that is stored of MODEL against the best evidence there is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to check, and what to do about it."""
    add_name(parser)
    parser.add_argument("--repair", action="store_true", help="mend what is wrong, from other tiers")
    parser.add_argument("--record", action="store_true", help="write a manifest where there is none")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="check only these files")
    add_progress(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print what was found of each file, then fail if anything is wrong."""
    wish = Examination(
        arguments.model,
        arguments.revision,
        repairs=arguments.repair,
        records=arguments.record,
        include=tuple(arguments.include),
        progress=arguments.progress,
    )
    found = examine(wish, decide_settings(parse_settings(arguments), {}))
    if not arguments.as_json:
        print(_show(found))
    found.check()
    if arguments.as_json:
        print(show_json(found.to_dict()))


def _show(found: Verification) -> str:
    rows = [("file", "bytes", "evidence", "verdict")]
    rows += [(escaped(f.path), show_bytes(f.nbytes), f.evidence, _verdict(f)) for f in found.files]
    notes = [line for finding in found.findings for line in _explain(finding)]
    notes += [f"{escaped(found.path)} ({escaped(found.tier)}): evidence {found.evidence}"]
    if found.missing:
        notes += [f"incomplete, so that no load takes it: {'; '.join(found.missing)}. fastload warm completes it"]
    notes += ["a manifest was recorded"] if found.recorded else []
    return "\n".join([show_table(rows), "", *notes])


def _verdict(file: FileVerdict) -> str:
    mended = [finding for finding in file.findings if finding.repaired]
    blocks = sum(finding.block is not None for finding in mended)
    verdicts = ["linked again" if file.relinked else "brought again"] if blocks < len(mended) else []
    verdicts += [f"{blocks} blocks repaired"] if blocks else []
    verdicts += ["DAMAGED"] if len(mended) < len(file.findings) else []
    verdicts += ["right past the page cache"] if file.reread else []
    return ", ".join(verdicts) or ("not known" if file.evidence == "none" else "ok")


def _explain(finding: Finding) -> tuple[str, ...]:
    where = "" if finding.block is None else f", block {finding.block} at byte {finding.offset:,}"
    state = ": repaired" if finding.repaired else ""
    found, expected = f"  found     {escaped(finding.found)}", f"  expected  {escaped(finding.expected)}"
    return (f"{escaped(finding.path)}{where}{state}", found, expected, "")
