"""``--metrics-file PATH``, for the verbs that bring or load models."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._tier import TierKind
from fastload.cli.ending import exit_code_of
from fastload.errors import StoreError
from fastload.ops.metrics.file import MetricsFile

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fastload.options import Settings


def add_metrics_argument(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument(
        "--metrics-file", metavar="PATH", help="leave gauges for Prometheus, such as for node-exporter: *.prom"
    )


def parse_metrics(arguments: argparse.Namespace, settings: Settings) -> MetricsFile:
    """The file that was asked for, if one was.

    Raises:
        StoreError: it could not be written there.
    """
    path = arguments.metrics_file and os.path.abspath(arguments.metrics_file)
    return MetricsFile(path, settings.local if TierKind.LOCAL in settings.tiers else None)


@contextmanager
def measured(metrics: MetricsFile, model: str) -> Iterator[None]:
    """What ends inside by an error, a signal too, is told to ``metrics``, and raised; what succeeds tells of itself."""
    try:
        yield
    except BaseException as exc:
        metrics.tell_failed(model, exc, exit_code_of(exc))
        raise


@contextmanager
def written_at_end(metrics: MetricsFile) -> Iterator[None]:
    """Writes the file in any case; that it cannot must not hide what failed before."""
    try:
        yield
    except BaseException:
        try:
            metrics.write()
        except StoreError as exc:
            print(f"fastload: no metrics: {exc}", file=sys.stderr)
        raise
    metrics.write()
