"""The last loads of a snapshot beside each other: is the newest one slower than usual?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from fastload.ops.doctor.finding import NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_SLOWER = 0.5
"""Of the usual speed: less is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLoad:
    """One load, as its report told it."""

    finished: str
    device: str
    reader: str
    seconds: float
    gb_per_s: float
    bound_by: str
    blocks_repaired: int


def parse_past(reports: Iterable[Mapping[str, Any]]) -> tuple[PastLoad, ...]:
    """The loads that brought something, the oldest first; what is no report of one is left out."""
    past: list[PastLoad] = []
    for report in reports:
        nbytes, seconds = report.get("bytes"), report.get("seconds")
        if not isinstance(nbytes, int) or not isinstance(seconds, int | float) or nbytes <= 0 or seconds <= 0:
            continue
        repaired = report.get("blocks_repaired", 0)
        past.append(
            PastLoad(
                finished=str(report.get("finished", "")),
                device=str(report.get("device", "")),
                reader=str(report.get("reader", "")),
                seconds=float(seconds),
                gb_per_s=nbytes / seconds / 1e9,
                bound_by=str(report.get("bound_by", "")),
                blocks_repaired=repaired if isinstance(repaired, int) else 0,
            )
        )
    return tuple(past)


def judge_history(model: str, past: Sequence[PastLoad]) -> Iterator[Finding]:
    """What the newest load says, beside the earlier ones to the same kind of device."""
    if not past:
        return
    newest = past[-1]
    kind = newest.device.partition(":")[0]
    earlier = [load for load in past[:-1] if load.device.partition(":")[0] == kind]
    usual = median(load.gb_per_s for load in earlier) if earlier else None
    if usual is not None and newest.gb_per_s < _SLOWER * usual:
        yield Finding(
            severity=WARNING,
            what=f"the last load of {model} to {kind} made {newest.gb_per_s:.2g} GB/s, last time "
            f"{earlier[-1].gb_per_s:.2g}, usually {usual:.2g}",
            why=f"it was bound by {newest.bound_by} ({newest.reader}); a cold page cache alone explains some of it",
            cure=f"fastload load {model} --trace trace.json shows where the time goes; fastload bench measures disks",
        )
    if newest.blocks_repaired:
        yield Finding(
            severity=NOTE,
            what=f"the last load of {model} had {newest.blocks_repaired} blocks mended",
            why="storage or memory gave wrong bytes; one is chance, more of them are a failing disk",
            cure=f"fastload verify {model} --repair; smartctl -a on its disk; dmesg",
        )
