"""``fastload load MODEL``: really load it, discard it, print the report."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._fetch.find.model import Source
from fastload._load.api import discard
from fastload._load.request.request import Request, begin_deadline
from fastload._store.filesystem import writing
from fastload.cli.flag import add_progress
from fastload.cli.metrics import add_metrics_argument, measured, parse_metrics, written_at_end
from fastload.cli.model import add_model, add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.errors import UsageError
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    import torch

    from fastload._load.stream.stream import Stream
    from fastload._trace import Trace
    from fastload.report import Report

HELP = "load MODEL for real, discard it, and say what was done"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags are the keywords of :func:`fastload.stream`."""
    add_model(parser)
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--tensors", action="append", metavar="GLOB", help="only these tensors; may be repeated")
    parser.add_argument("--dtype", metavar="DTYPE", help="cast floating-point tensors to F64, F32, F16 or BF16")
    add_progress(parser)
    parser.add_argument("--trace", metavar="FILE", help="write what every thread did when, for ui.perfetto.dev")
    add_metrics_argument(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """One tensor after another, so that a model larger than memory can be tried."""
    seen = _Seen()
    settings = decide_settings(parse_settings(arguments), {})
    source = Source(arguments.model, arguments.subfolder, arguments.variant, arguments.revision)
    request = Request(
        source=source,
        tensors=arguments.tensors,
        dtype=arguments.dtype,
        progress=arguments.progress,
        settings=settings,
        deadline=begin_deadline(source, settings),
    )
    metrics = parse_metrics(arguments, settings)
    with (
        written_at_end(metrics),
        measured(metrics, arguments.model),
        _writing_trace(arguments.trace) as keep,
    ):

        def begin(stream: Stream) -> Callable[[torch.Tensor], None]:
            keep(stream)
            return seen.begin()

        report = discard(request, arguments.device, begin)
        metrics.tell_done(arguments.model, report)
    print(show_json(report.to_dict()) if arguments.as_json else f"{seen.show()}\n\n{show_report(report)}")


class _Seen:
    """The tensors of a load, counted by dtype."""

    def __init__(self) -> None:
        self._tensors: Counter[str] = Counter()
        self._nbytes: Counter[str] = Counter()

    def begin(self) -> Callable[[torch.Tensor], None]:
        """Forget what was counted: the load begins, or begins anew. Returns what counts a tensor."""
        self._tensors.clear()
        self._nbytes.clear()
        return self._count

    def _count(self, tensor: torch.Tensor) -> None:
        self._tensors[str(tensor.dtype)] += 1
        self._nbytes[str(tensor.dtype)] += tensor.nbytes

    def show(self) -> str:
        """The table for a person."""
        rows = [
            (dtype.removeprefix("torch."), str(count), show_bytes(self._nbytes[dtype]))
            for dtype, count in self._tensors.items()
        ]
        total = ("total", str(self._tensors.total()), show_bytes(self._nbytes.total()))
        return show_table([("dtype", "tensors", "bytes"), *rows, total])


@contextmanager
def _writing_trace(path: str | None) -> Iterator[Callable[[Stream], None]]:
    """Gives what starts a stream's trace, and writes it to ``path`` at the end, also of a load that failed.

    It is opened first: a wrong path shall not cost a load. What is there stays until there is a trace to write.
    """
    if path is None:
        yield lambda _: None
        return
    _write(path, None)
    traces: list[Trace] = []
    try:
        yield lambda stream: traces.append(stream.start_trace())
    finally:
        if traces:
            _write(path, traces[-1])


def _write(path: str, trace: Trace | None) -> None:
    if not path:
        raise UsageError("--trace wants a path", "It is empty: is a variable of the shell not set?")
    with writing(os.path.abspath(path)), open(path, "a" if trace is None else "w", encoding="utf-8") as file:
        if trace is not None:
            json.dump(trace.to_dict(), file)


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
