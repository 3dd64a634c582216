"""What the numbers of a volume mean: how long models take from it, which design it fits, and the probe to write."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._read.kernel import MEMORY, NETWORK
from fastload.ops.bench.contestants import READINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload.ops.bench.tables import Table

_MODELS = {"8B": 16e9, "70B": 141e9, "405B": 810e9}
"""Bytes of the weights in BF16."""
_FAST_BYTES_PER_S = 2e9
"""From here on a pod may read from the volume whenever it starts."""
_SLOW_BYTES_PER_S = 0.5e9
_ENGINE_S = 180
"""What an engine takes beside: imports, compiling, warming up."""
_MARGIN = 3
"""Others use the storage too."""
_PERIOD_S = 10
_PAST_THE_CACHE = ("read-direct", "fastload-direct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One size of model from this volume."""

    model: str
    nbytes: float
    seconds: float
    failure_threshold: int
    """Of a startup probe that asks every ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What this volume is good for."""

    bytes_per_s: float
    row: str
    """Whose number that is."""
    starts: tuple[Start, ...]
    design: str
    why: str

    @property
    def sentence(self) -> str:
        """In one line."""
        speed = f"{self.bytes_per_s / 1e9:.2f} GB/s cold ({self.row})"
        times = ", ".join(f"{start.model} in {start.seconds:,.0f} s" for start in self.starts)
        return f"{speed}: {times}; fits {self.design}"

    @property
    def probe(self) -> dict[str, Any]:
        """A startup probe for the middle size, as Kubernetes takes it."""
        middle = self.starts[len(self.starts) // 2]
        return {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": _PERIOD_S,
            "failureThreshold": middle.failure_threshold,
        }

    @property
    def probe_text(self) -> str:
        """The same in YAML, to paste."""
        others = ", ".join(f"{start.model}: {start.failure_threshold}" for start in self.starts)
        get = ", ".join(f"{name}: {value}" for name, value in self.probe["httpGet"].items())
        return (
            f"startupProbe:  # {self.bytes_per_s / 1e9:.2f} GB/s; failureThreshold by model: {others}\n"
            f"  httpGet: {{{get}}}\n"
            f"  periodSeconds: {self.probe['periodSeconds']}\n"
            f"  failureThreshold: {self.probe['failureThreshold']}\n"
        )


def judge_volume(tables: Sequence[Table], file_system: str) -> Verdict | None:
    """The verdict, by what was measured cold; None where nothing was: from the page cache every volume is fast.

    Where it is not proven that the files were cold, only what reads past the page cache counts.

    Args:
        tables: what was measured.
        file_system: as mounts name it, such as ``ext4``, ``nfs4`` or ``fuse.s3fs``.
    """
    speeds = {
        row: samples[0].nbytes / seconds
        for table in tables
        if table.state == "cold"
        for row, samples in table.samples.items()
        if _counts(row, table) and (seconds := table.get(row))
    }
    if not speeds or file_system in MEMORY:
        return None
    row = "fastload-auto" if "fastload-auto" in speeds else max(speeds, key=lambda each: speeds[each])
    design, why = _choose_design(speeds[row], is_network=file_system.startswith(tuple(NETWORK)))
    starts = tuple(reckon_start(model, nbytes, speeds[row]) for model, nbytes in _MODELS.items())
    return Verdict(bytes_per_s=speeds[row], row=row, starts=starts, design=design, why=why)


def _counts(row: str, table: Table) -> bool:
    if not table.is_proven:
        return row.startswith(_PAST_THE_CACHE)
    return row in READINGS or row.startswith("fastload")


def reckon_start(model: str, nbytes: float, bytes_per_s: float) -> Start:
    """How long ``nbytes`` take, and the startup probe that allows for it."""
    seconds = nbytes / bytes_per_s
    threshold = math.ceil((_MARGIN * seconds + _ENGINE_S) / _PERIOD_S)
    return Start(model=model, nbytes=nbytes, seconds=seconds, failure_threshold=threshold)


def _choose_design(bytes_per_s: float, *, is_network: bool) -> tuple[str, str]:
    if is_network and bytes_per_s >= _FAST_BYTES_PER_S:
        return "rwx-pvc", "each pod may read from it as it starts, as long as few start at once: they share its speed"
    if is_network:
        return "hybrid", "as a source only: copy once to a disk of the node, and start from there"
    if bytes_per_s >= _SLOW_BYTES_PER_S:
        return (
            "hybrid, local-pv, hostpath",
            "a good cache for a shared source, or the only copy of one node",
        )
    return "rwo-pvc", "for few starts: buy throughput, or put a faster disk before it"
