"""``fastload bench [MODEL]``: how fast is this volume, and who loads fastest from it?"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastload._settings.values import parse_rate, parse_size
from fastload._store.filesystem import writing
from fastload.cli.flag import parsed_by
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json
from fastload.errors import UsageError, escaped
from fastload.ops.bench.bench import CONTESTANTS, STATES, BenchOutcome, BenchRequest, run_bench
from fastload.ops.bench.chart import draw_chart
from fastload.ops.bench.reckoning import Fleet, describe
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fastload.ops.bench.verdict import Verdict

HELP = "measure storage, fastload's readers and other loaders, in turns"
_SIZE = "2Gi"
_BESIDE = "-"
"""Where the text goes, and not into a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure; ``--max-rate`` is the setting of that name."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model that is there, or a folder of a volume (default: local)"
    )
    parser.add_argument(
        "--size",
        type=parsed_by(parse_size),
        default=_SIZE,
        metavar="BYTES",
        help=f"read so much at most, in whole shards, one at least (default: {_SIZE})",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="per row (default: 3); one more is discarded"
    )
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="where the loaders load to: cpu, cuda:0")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES, help="of the page cache")
    parser.add_argument("--only", nargs="+", metavar="ROW", help=f"some of {', '.join(CONTESTANTS)}")
    parser.add_argument(
        "--gpus", type=int, nargs="+", metavar="N", help="reckon what so many would take (docs/scaling.md)"
    )
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="with --gpus (default: 8)")
    parser.add_argument(
        "--model-size",
        type=parsed_by(parse_size),
        metavar="BYTES",
        help="with --gpus: of the model (default: what was read)",
    )
    parser.add_argument(
        "--shared-rate",
        type=parsed_by(parse_rate),
        metavar="BYTES",
        help="with --gpus: a second, of storage shared by all machines",
    )
    parser.add_argument("--chart", metavar="FILE", help="write the tables as bars, in SVG; -: beside the text")
    add_settings(parser)


def _check(arguments: argparse.Namespace) -> None:
    """What would only show when all has been measured is refused before."""
    for flag in ("rounds", "gpus_per_node"):
        if getattr(arguments, flag) < 1:
            raise UsageError(f"--{flag.replace('_', '-')} must be at least 1")
    if arguments.gpus is not None and min(arguments.gpus) < 1:
        raise UsageError("--gpus must be at least 1")
    if arguments.model_size is not None and arguments.model_size < 1:
        raise UsageError("--model-size must be at least 1 byte")
    if arguments.chart not in {None, _BESIDE} and not arguments.chart.endswith(".svg"):
        raise UsageError(f"--chart got {arguments.chart!r}", "It is SVG: give a name in .svg, or - for stdout")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    _check(arguments)
    options = parse_settings(arguments)
    wish = BenchRequest(
        model=arguments.model,
        size_bytes=arguments.size,
        device=arguments.device,
        rounds=arguments.rounds,
        states=tuple(arguments.states),
        only=arguments.only,
        options={name: value for name, value in asdict(options).items() if value is not None},
    )
    if arguments.chart not in {None, _BESIDE}:
        _write(arguments.chart, "", mode="a")  # a wrong path shall not cost the run; what is there stays until its end
    found = run_bench(wish, decide_settings(options, {}))
    chart = draw_chart(found.tables, found.verdict.sentence if found.verdict else "") if arguments.chart else ""
    if arguments.chart not in {None, _BESIDE}:
        _write(arguments.chart, chart)
    reckoned = _reckon(arguments, found)
    text = "\n".join([_show(found), *reckoned, *([chart] if arguments.chart == _BESIDE else [])])
    # With --json whoever reads a log has both: a program takes stdout, a person the rest.
    print(text, file=sys.stderr if arguments.as_json else sys.stdout)
    if arguments.as_json:
        print(show_json({**found.to_dict(), **({"reckoned": reckoned} if reckoned else {})}))


def _reckon(arguments: argparse.Namespace, found: BenchOutcome) -> list[str]:
    if not arguments.gpus:
        return []
    size = found.nbytes if arguments.model_size is None else arguments.model_size
    fleet = Fleet(gpus=arguments.gpus, gpus_per_node=arguments.gpus_per_node, shared_rate=arguments.shared_rate)
    return describe(fleet, size, found.tables)


def _write(path: str, text: str, mode: str = "w") -> None:
    with writing(os.path.abspath(path)), open(path, mode, encoding="utf-8") as file:
        file.write(text)


def _show(found: BenchOutcome) -> str:
    lines = [f"{name}: {fact}" for name, fact in found.machine.items()]
    lines.append(f"read: {show_bytes(found.nbytes)} of {escaped(found.folder)}")
    if found.max_rate is not None:
        lines.append(f"held to {show_bytes(found.max_rate)} a second: the rows show that rate, not the storage's")
    tables = [f"\n{table.render()}" for table in found.tables]
    skipped = [f"{name}: skipped, {escaped(why)}" for name, why in found.skipped.items()]
    return "\n".join([*lines, *tables, "", *skipped, *_show_verdict(found.verdict)])


def _show_verdict(verdict: Verdict | None) -> Iterator[str]:
    if verdict is None:
        return
    yield f"\nverdict: {verdict.sentence}: {verdict.why}"
    for start in verdict.starts:
        yield f"  {start.model:>4} in BF16, {start.nbytes / 1e9:.0f} GB: {start.seconds:,.0f} s"
    yield f"\n{verdict.probe_text}"
