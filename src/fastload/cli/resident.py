"""``warm --list FILE --every TIME``: tells of each round, and never ends by itself."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from fastload._settings.values import parse_duration
from fastload._tier import TierKind
from fastload.cli.flag import parsed_by
from fastload.cli.log import tell_failure
from fastload.cli.text import show_json
from fastload.errors import StoreError, UsageError, escaped
from fastload.ops.warmer.priority import lower_io_priority
from fastload.ops.warmer.resident import stay
from fastload.ops.warmer.upkeep import Upkeep
from fastload.ops.warmer.wanted_list import read_list

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from fastload._fetch.warm.request import WarmRequest
    from fastload.ops.metrics.file import MetricsFile
    from fastload.ops.warmer.upkeep import Round
    from fastload.options import Settings

_LONGEST_DAYS = 365


def add_resident_arguments(parser: argparse.ArgumentParser) -> None:
    """What makes ``warm`` stay."""
    group = parser.add_argument_group("resident (--list FILE --every TIME)")
    group.add_argument("--list", metavar="FILE", help="NAME or NAME@commit per line; read again in each round")
    group.add_argument(
        "--every",
        type=parsed_by(parse_duration),
        metavar="TIME",
        help="stay, and do it again so long after each round, such as 6h",
    )
    group.add_argument("--recheck", action="store_true", help="prove what is there again in each round, and mend it")
    group.add_argument("--prune", action="store_true", help="remove what the list brought and names no more")
    group.add_argument("--ready-file", metavar="PATH", help="is there while all that is listed is")


def list_models(arguments: argparse.Namespace) -> list[str]:
    """The names on the command line, or in the list.

    Raises:
        UsageError: neither, both, or flags that mean nothing together.
    """
    if bool(arguments.models) == bool(arguments.list):
        raise UsageError("warm wants names, or --list FILE", "Give one of the two")
    alone = [flag for flag in ("recheck", "prune", "ready_file") if getattr(arguments, flag)]
    if alone and arguments.every is None:
        raise UsageError(f"--{alone[0].replace('_', '-')} is for a resident warmer", "Add --every, such as --every 6h")
    if arguments.every is None:
        return arguments.models or list(read_list(os.path.abspath(arguments.list)).names)
    if not arguments.list:
        raise UsageError("--every is for a list", "Write the names into a file: --list FILE")
    if arguments.dry_run or arguments.plain or arguments.link or (arguments.prune and arguments.to != TierKind.LOCAL):
        raise UsageError("--every goes with none of --dry-run, --plain, --link; --prune only with --to local", "")
    return []


def stay_resident(
    arguments: argparse.Namespace, request: Callable[[str], WarmRequest], settings: Settings, metrics: MetricsFile
) -> NoReturn:
    """Round after round; see :mod:`fastload.ops.warmer`."""
    every_s = arguments.every
    if not 0 < every_s <= _LONGEST_DAYS * 86400:
        raise UsageError(f"--every {every_s:g} s is no pause", "Give a time such as 6h")
    read_list(os.path.abspath(arguments.list))  # a wrong path is told at once; later rounds outlive one
    problem = lower_io_priority()
    if problem:
        _tell(f"the I/O priority stays as it is ({problem})")
    upkeep = Upkeep(
        list_path=os.path.abspath(arguments.list),
        request=request,
        settings=settings,
        rechecks=arguments.recheck,
        prunes=arguments.prune,
    )
    ready_file = arguments.ready_file and os.path.abspath(arguments.ready_file)
    show = _print_as_json if arguments.as_json else _print

    def tell(done: Round) -> None:
        _measure(done, metrics)
        show(done)

    stay(upkeep, every_s, ready_file, tell)


def _measure(done: Round, metrics: MetricsFile) -> None:
    """The last word on each name that is listed; that it cannot be written ends no warmer."""
    for outcome in done.models:
        if outcome.error is not None:
            metrics.tell_failed(outcome.model, outcome.error, outcome.error.exit_code)
        elif outcome.snapshot is not None:
            metrics.tell_done(outcome.model, outcome.snapshot.report)
            if outcome.found is not None:
                metrics.tell_checked(outcome.model, outcome.found)
    if done.models:
        metrics.keep_only({outcome.model for outcome in done.models})
    try:
        metrics.write()
    except StoreError as exc:
        _tell(f"no metrics: {exc}")


def _print_as_json(done: Round) -> None:
    print(show_json(done.to_dict()), flush=True)


def _print(done: Round) -> None:
    """The path of each snapshot, in order; what is wrong on stderr."""
    for outcome in done.models:
        if outcome.error is not None:
            tell_failure(f"{outcome.model}: {outcome.error}", outcome.error.to_dict(), outcome.error.exit_code)
        elif outcome.snapshot is not None:
            print(outcome.snapshot.path, flush=True)
        for finding in () if outcome.found is None else outcome.found.findings:
            _tell(f"{outcome.model}: {escaped(finding.path)} was wrong at byte {finding.offset}, and was mended")
    for gone in done.pruned:
        _tell(f"removed {gone}, which is listed no more")
    if done.not_pruned is not None:
        _tell(f"nothing was pruned: {done.not_pruned}")
    if done.problem is not None:
        tell_failure(str(done.problem), done.problem.to_dict(), done.problem.exit_code)


def _tell(sentence: str) -> None:
    print(f"fastload: {sentence}", file=sys.stderr, flush=True)
