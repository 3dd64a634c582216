"""``fastload load MODEL``: really load it, discard it, print the report."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fastload
from fastload._store.filesystem import translate_write
from fastload.cli.metrics import add_metrics_argument, measured, parse_metrics, written_at_end
from fastload.cli.model import add_model, add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from fastload.report import Report

HELP = "load MODEL for real, discard it, and say what was done"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags are the keywords of :func:`fastload.stream`."""
    add_model(parser)
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--tensors", action="append", metavar="GLOB", help="only these tensors; may be repeated")
    parser.add_argument("--dtype", metavar="DTYPE", help="cast floating-point tensors to F64, F32, F16 or BF16")
    progress = parser.add_mutually_exclusive_group()
    progress.add_argument("--progress", action="store_true", default=None, help="also where stderr is no terminal")
    progress.add_argument("--no-progress", action="store_false", dest="progress", help="never")
    parser.add_argument("--trace", metavar="FILE", help="write what every thread did when, for ui.perfetto.dev")
    add_metrics_argument(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Stream, so that a model larger than memory can be tried."""
    tensors: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    options = parse_settings(arguments)
    metrics = parse_metrics(arguments, decide_settings(options, {}))
    with (
        written_at_end(metrics),
        measured(metrics, arguments.model),
        _writing_trace(arguments.trace) as keep,
        fastload.stream(
            arguments.model,
            device=arguments.device,
            revision=arguments.revision,
            subfolder=arguments.subfolder,
            variant=arguments.variant,
            tensors=arguments.tensors,
            dtype=arguments.dtype,
            progress=arguments.progress,
            options=options,
        ) as stream,
    ):
        keep(stream)
        for _, tensor in stream:
            tensors[str(tensor.dtype)] += 1
            nbytes[str(tensor.dtype)] += tensor.nbytes
        metrics.tell_done(arguments.model, stream.report)
    if arguments.as_json:
        print(show_json(stream.report.to_dict()))
        return
    rows = [(dtype.removeprefix("torch."), str(count), show_bytes(nbytes[dtype])) for dtype, count in tensors.items()]
    total = ("total", str(tensors.total()), show_bytes(nbytes.total()))
    print(show_table([("dtype", "tensors", "bytes"), *rows, total]))
    print()
    print(show_report(stream.report))


@contextmanager
def _writing_trace(path: str | None) -> Iterator[Callable[[fastload.Stream], None]]:
    """Gives what starts a stream's trace, and writes it to ``path`` at the end, also of a load that failed.

    An empty one is written first: a wrong path shall not cost a load.
    """
    if path is None:
        yield lambda _: None
        return
    _write(path, fastload.Trace())
    traces: list[fastload.Trace] = []
    try:
        yield lambda stream: traces.append(stream.start_trace())
    finally:
        for trace in traces:
            _write(path, trace)


def _write(path: str, trace: fastload.Trace) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(trace.to_dict(), file)
    except OSError as exc:
        raise translate_write(os.path.abspath(path), exc) from exc


def show_report(report: Report) -> str:
    """The report for a person."""
    stages = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in report.stages.items() if seconds)
    rate = f"{report.bytes_per_s / 1e9:.2f} GB/s" if report.bytes else "nothing to load"
    return show_table(
        [
            ("loaded", f"{show_bytes(report.bytes)} to {report.device} in {report.seconds:.3f} s: {rate}"),
            ("read", show_bytes(report.bytes_read)),
            ("stages", stages),
            ("reader", f"{report.reader} ({report.reader_reason})"),
            ("bound by", report.bottleneck),
            ("evidence", _show_evidence(report)),
            ("staging", f"at most {show_bytes(report.peak_staging_bytes)} of host memory"),
        ]
    )


def _show_evidence(report: Report) -> str:
    counts = [f"{report.blocks_reread} read again"] if report.blocks_reread else []
    counts += [f"{report.blocks_repaired} repaired"] if report.blocks_repaired else []
    is_worth_saying = report.device != "cpu" and report.hashed_on != "none"
    counts += [f"digested on {report.hashed_on}: {report.hashed_reason}"] if is_worth_saying else []
    return "; ".join([f"{report.evidence}: {report.evidence_reason}", *counts])
