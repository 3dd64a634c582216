"""What the rates that were measured here mean for many GPUs: lines for a person, from :mod:`fastload.ops.scaling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload.ops.bench.contestants import READINGS
from fastload.ops.scaling import WAYS, Estimate, Site, estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload.ops.bench.tables import Table

_NETWORK_RATE = 25e9
_EXCHANGE_RATE = 10e9
_DEVICE_RATE = 25e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """For whom to reckon."""

    gpus: Sequence[int]
    gpus_per_node: int
    shared_rate: int | None
    """Bytes a second of the storage, for all machines together; None: each has disks of its own, as fast as here."""


def find_storage_rate(tables: Sequence[Table]) -> float | None:
    """Bytes a second of the fastest reading of storage alone, with an empty page cache; None: it was not measured."""
    cold = (table for table in tables if table.state == "cold")
    rates = [sample.nbytes / sample.seconds for t in cold for name in READINGS for sample in t.samples.get(name, ())]
    return max(rates, default=None)


def reckon(fleet: Fleet, model_bytes: int, node_rate: float, *, by_rows: bool) -> Iterator[tuple[int, Estimate]]:
    """By number of GPUs and way to load; ``by_rows``: with ``shard=``, over the ranks of each machine."""
    for gpus in fleet.gpus:
        nodes = -(-gpus // fleet.gpus_per_node)
        site = Site(
            model_bytes=model_bytes,
            gpus=gpus,
            gpus_per_node=fleet.gpus_per_node,
            shared_rate=node_rate * nodes if fleet.shared_rate is None else fleet.shared_rate,
            node_rate=node_rate,
            network_rate=_NETWORK_RATE,
            exchange_rate=_EXCHANGE_RATE,
            device_rate=_DEVICE_RATE,
            kept_fraction=1 / min(gpus, fleet.gpus_per_node) if by_rows else 1.0,
        )
        for way in WAYS:
            yield gpus, estimate(site, way)


def describe(fleet: Fleet, model_bytes: int, tables: Sequence[Table]) -> list[str]:
    """The estimates as lines, with what they rest on."""
    rate = find_storage_rate(tables)
    if rate is None:
        return ["nothing to reckon by: storage was not measured with an empty page cache"]
    shared = "its own" if fleet.shared_rate is None else f"{fleet.shared_rate / 1e9:g} GB/s for all"
    head = (
        f"reckoned for {model_bytes / 1e9:.1f} GB, {fleet.gpus_per_node} GPUs a machine: storage "
        f"{rate / 1e9:.2f} GB/s a machine (measured), {shared}; assumed: network {_NETWORK_RATE / 1e9:g}, exchange "
        f"{_EXCHANGE_RATE / 1e9:g}, each device {_DEVICE_RATE / 1e9:g} GB/s (docs/scaling.md)"
    )
    lines = [head]
    all_ways = (reckon(fleet, model_bytes, rate, by_rows=by_rows) for by_rows in (False, True))
    for (gpus, whole), (_, rows) in zip(*all_ways, strict=True):
        lines.append(f"{gpus:6,} GPUs  {whole.way:16}  {_show(whole)}; with shard= by rows {_show(rows)}")
    return lines


def _show(found: Estimate) -> str:
    return f"{found.seconds:10,.1f} s  limited by {found.limit}"
