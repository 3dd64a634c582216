"""What fastload promises about host memory, and whether this run kept it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastload.ops.bench.contestants import CEILING, LOOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastload.ops.bench.tables import Table

_COPYING = ("fastload-auto", "fastload-direct", "fastload-buffered")
_RSS_LIMIT_GIB = 0.4
_LINEAR = 1.25  # what the noise of a machine may add


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, the number found, and whether it is kept."""

    promise: str
    found: float
    met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'} {self.promise}: {self.found:.3g}"


def judge(tables: Mapping[str, Table]) -> list[Verdict]:
    """The promises that the ``tables`` (by part) have numbers for."""
    verdicts: list[Verdict] = []
    if cold := tables.get("cold"):
        verdicts += _at_most(
            "cold: auto / fastest peer <= 1.05", cold.get("fastload-auto"), cold.find_best_peer(), 1.05
        )
    if cached := tables.get("cached"):
        auto, mapped = cached.get("fastload-auto"), cached.get("fastload-mmap")
        verdicts += _at_most("cached: mmap / safetensors' mmap <= 1.2", mapped, cached.get("safetensors"), 1.2)
        verdicts += _at_least("cached: auto's speed / memcpy's >= 0.7", cached.get(CEILING), auto, 0.7)
        verdicts += _at_least("cached: auto's speed / Run:ai's >= 4", cached.get("runai"), auto, 4)
    for name, table in tables.items():
        above = table.find_worst_rss(_COPYING)
        promise = f"{name}: peak RSS above the model <= {_RSS_LIMIT_GIB} GiB"
        verdicts += _at_most(promise, above, 1 << 30, _RSS_LIMIT_GIB)
    if tiny := tables.get("tiny"):
        verdicts += _at_most("8,000 tiny tensors: auto's seconds < 0.4", tiny.get("fastload-auto"), 1, 0.4)
    if many := tables.get("many"):
        verdicts += _at_most("90,000 tiny tensors: auto's seconds < 3", many.get("fastload-auto"), 1, 3)
    return verdicts


def judge_growth(tables: Sequence[Table]) -> list[Verdict]:
    """Whether a byte of the largest checkpoint takes no longer than one of the smallest; ``tables`` by growing size."""
    verdicts: list[Verdict] = []
    for state in ("cold", "cached"):
        costs = [table.get("fastload-auto", lambda s: s.seconds / s.nbytes) for table in tables if table.state == state]
        if len(costs) > 1:
            promise = f"growth, {state}: seconds per byte, largest / smallest <= {_LINEAR}"
            verdicts += _at_most(promise, costs[-1], costs[0], _LINEAR)
    return verdicts


def judge_proof(tables: Mapping[str, Table]) -> list[Verdict]:
    """What proving may cost; ``tables`` by part."""
    verdicts: list[Verdict] = []
    if cold := tables.get("cold"):
        for proven, off in (("manifest", "off"), ("recorded", "off"), ("manifest-mmap", "off-mmap")):
            verdicts += _at_most(f"cold: {proven} / {off} <= 1.02", cold.get(proven), cold.get(off), 1.02)
    if cached := tables.get("cached"):
        for proven, limit in (("manifest-mmap", 0.9), ("manifest", 0.7), ("recorded", 0.7)):
            promise = f"cached: {proven}'s speed / the bare loop's >= {limit}"
            verdicts += _at_least(promise, cached.get(LOOP), cached.get(proven), limit)
    return verdicts


def write_record(path: str, machine: Mapping[str, str], verdicts: Sequence[Verdict], tables: Sequence[Table]) -> None:
    """Everything that a run found, with every sample, as JSON."""
    wrong = [f"{table.title}: {name}" for table in tables for name in table.find_differences()]
    record = {"schema": 1, "machine": machine, "verdicts": list(map(asdict, verdicts)), "wrong": wrong}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record | {"tables": list(map(asdict, tables))}, file, indent=1)


def _at_most(promise: str, value: float | None, of: float | None, limit: float) -> Iterator[Verdict]:
    if value is not None and of is not None:
        yield Verdict(promise, value / of, value / of <= limit)


def _at_least(promise: str, value: float | None, of: float | None, limit: float) -> Iterator[Verdict]:
    if value is not None and of is not None:
        yield Verdict(promise, value / of, value / of >= limit)
