"""What a load says in vLLM's log: a line now and then while it runs, and one when it has ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload.integrations.vllm.ranks import Rank
    from fastload.report import Report

_log = logging.getLogger("vllm.fastload")
_EVERY_S = 10.0


class RankProgress:
    """A line every ten seconds, from rank 0; from another rank only if nothing has come for so long."""

    def __init__(self, rank: Rank, clock: Callable[[], float] = time.monotonic) -> None:
        self._rank = rank
        self._clock = clock
        self._begin_s = self._told_s = self._came_s = clock()
        self._done_bytes = 0

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """So many bytes have come; none since the last call, where somebody waits for them."""
        now_s, came_s = self._clock(), self._came_s
        if done_bytes > self._done_bytes:
            self._done_bytes, self._came_s = done_bytes, now_s
        is_slow = now_s - came_s >= _EVERY_S
        if now_s - self._told_s < _EVERY_S or not (is_slow or self._rank.number == 0):
            return
        self._told_s = now_s
        share = done_bytes / total_bytes if total_bytes else 1.0
        rate = done_bytes / (now_s - self._begin_s) / 1e9
        waited = f", after {now_s - came_s:.0f} s without a byte" if is_slow else ""
        line = "rank %d: %.1f GB (%.0f%%), %.2f GB/s%s"
        _log.info(line, self._rank.number, done_bytes / 1e9, share * 100, rate, waited)


def tell(report: Report, rank: Rank, why_alone: str | None = None) -> None:
    """One line on what was done, from rank 0.

    Args:
        report: of the load.
        rank: this one.
        why_alone: why ranks that could have shared the reading did not.
    """
    level = logging.INFO if rank.number == 0 else logging.DEBUG
    _log.log(
        level,
        "%.3g GB from %s in %.2f s (%.2f GB/s), evidence %s (%s), reader %s; bound by %s%s",
        report.bytes / 1e9,
        report.tier,
        report.seconds,
        report.bytes_per_s / 1e9,
        report.evidence,
        report.evidence_reason,
        report.reader,
        report.bottleneck,
        _describe_ranks(report, why_alone),
    )


def _describe_ranks(report: Report, why_alone: str | None) -> str:
    if report.group is None:
        return "" if why_alone is None else f"; each rank reads for itself: {why_alone}"
    read = " + ".join(f"{each.bytes_read / 1e9:.3g}" for each in report.group.ranks)
    return f"; {report.group.size} ranks read {read} GB from storage; {report.group.reason}"
