"""``fastload warm NAME…``: bring models up, verified. The paths, in the order of the names, are all of stdout."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastload._fetch.warm.request import WarmRequest
from fastload._fetch.warm.warm import plan_warm, warm
from fastload._settings.values import parse_duration
from fastload._store.wanted import parse_wish
from fastload.cli.flag import add_progress, parsed_by
from fastload.cli.metrics import add_metrics_argument, measured, parse_metrics, written_at_end
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.resident import add_resident_arguments, list_models, stay_resident
from fastload.cli.several import try_each
from fastload.cli.text import show_bytes, show_json
from fastload.errors import UsageError
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fastload._fetch.warm.request import Planned
    from fastload.options import Settings

HELP = "bring models up to a tier, verified; does nothing where they are there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to bring, where to, and how gently."""
    parser.add_argument(
        "models", metavar="NAME", nargs="*", help="org/name[@revision], an alias, a folder's name, a path"
    )
    parser.add_argument("--to", default="local", metavar="TIER", help="local (default), shared, or the root of a cache")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="bring these too, as '*.gguf'")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="leave these out")
    parser.add_argument("--plain", metavar="DIR", help="real files in DIR, no links, for places without symlinks")
    parser.add_argument("--link", metavar="PATH", help="make PATH a link to the snapshot")
    parser.add_argument("--slots", type=int, metavar="K", help="at most K copy from a shared tier at once")
    parser.add_argument(
        "--jitter",
        type=parsed_by(parse_duration),
        default=0.0,
        metavar="TIME",
        help="wait up to this long before beginning, such as 30s",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be brought")
    add_resident_arguments(parser)
    add_progress(parser)
    add_metrics_argument(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Try all; the first failure is the command's."""
    names = list_models(arguments)
    _check_paths(arguments, names)
    settings = decide_settings(parse_settings(arguments), {})
    metrics = parse_metrics(arguments, settings)

    def bring(model: str) -> dict[str, Any]:
        request = _request(arguments, model)
        if arguments.dry_run:
            return _plan(request, settings, arguments)
        with measured(metrics, model):
            snapshot = warm(request, settings)
        metrics.tell_done(model, snapshot.report)
        if not arguments.as_json:
            print(snapshot.path, flush=True)
        return asdict(snapshot)

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if arguments.every is not None:
            stay_resident(arguments, lambda model: _request(arguments, model), settings, metrics)
        # A plan is no attempt: what the file says of the last one stays.
        with nullcontext() if arguments.dry_run else written_at_end(metrics):
            facts = try_each(names, bring, "models")
    if arguments.as_json:
        print(show_json(facts))


def _check_paths(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    for flag in ("plain", "link"):
        if getattr(arguments, flag) == "":
            raise UsageError(f"--{flag} wants a path", "It is empty: is a variable of the shell not set?")
    if len(names) > 1 and (arguments.plain or arguments.link):
        raise UsageError("--plain and --link are for one NAME", "Run warm once for each")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"fastload: {message}", file=sys.stderr)


def _request(arguments: argparse.Namespace, model: str) -> WarmRequest:
    return WarmRequest(
        model=model,
        to=arguments.to,
        wish=parse_wish(arguments.include, arguments.exclude),
        plain=arguments.plain and os.path.abspath(arguments.plain),
        link=arguments.link and os.path.abspath(arguments.link),
        slots=arguments.slots,
        jitter_s=arguments.jitter,
        progress=arguments.progress,
        tell=lambda sentence: print(f"fastload: {sentence}", file=sys.stderr, flush=True),
    )


def _plan(request: WarmRequest, settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    planned = plan_warm(request, settings)
    if not arguments.as_json:
        print(_show_plan(planned), file=sys.stderr)
    return {**asdict(planned), "bytes": planned.nbytes}


def _show_plan(planned: Planned) -> str:
    head = f"{planned.repo}@{planned.commit or '(by content)'}"
    if not planned.files:
        return f"{head}: is in {planned.to}, nothing to do"
    lines = [f"  {show_bytes(size):>12}  {path}" for path, size in planned.files]
    return "\n".join([f"{head}: {show_bytes(planned.nbytes)} from {planned.tier} to {planned.to}", *lines])
