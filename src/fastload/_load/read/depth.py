"""The depth of direct reads, by file system: as measured before, or measured by this load."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._cpus import count_cpus
from fastload._read.depth import GatedReader, open_gate
from fastload._system_file import read_boot_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._format.checkpoint import Shard
    from fastload._read.choose import Choice
    from fastload._read.depth import DepthGate
    from fastload._read.measured import Measured
    from fastload._read.reader import File, OpenReader, Reader

_KIND = "depth"
_TRIED = (4, 8, 16)
_ON_FEW_CPUS = (4, 8)
_MANY_CPUS = 8
_DEEPEST = 64
_LANES_PER_READ = 2
"""Where the CPU digests: the disk gets as many reads at once as it wants, while as many others are digested. With a
lane for each read, a proven cold load took 1.1 to 1.2 times as long as one that proves nothing; with two, as long."""


def tune(choices: Mapping[int, Choice], shards: Sequence[Shard], measured: Measured) -> dict[int, Choice]:
    """``choices`` of which those that ``auto`` reads past the page cache do so at the depth that their disk wants."""
    gates: dict[int, DepthGate] = {}
    tuned = dict(choices)
    for number, choice in choices.items():
        if choice.is_tunable:
            device = shards[number].identity.dev
            if device not in gates:
                gates[device] = _gate_for(device, measured)
            gate = gates[device]
            depth = max(choice.depth, gate.deepest)
            tuned[number] = replace(
                choice, open=_gated(choice.open, gate), depth=depth, digesting_depth=_LANES_PER_READ * depth
            )
    return tuned


def _gate_for(device: int, measured: Measured) -> DepthGate:
    key = f"{read_boot_id()} {os.major(device)}:{os.minor(device)}"
    facts = measured.find(_KIND, key) or {}
    known = facts.get("reads")
    if isinstance(known, int) and 1 <= known <= _DEEPEST:
        return open_gate((known,), lambda _: None)
    tried = _TRIED if count_cpus().usable >= _MANY_CPUS else _ON_FEW_CPUS
    return open_gate(tried, lambda found: measured.keep(_KIND, key, {"reads": found}))


def _gated(open_reader: OpenReader, gate: DepthGate) -> OpenReader:
    def open_gated(file: File) -> Reader:
        return GatedReader(open_reader(file), gate)

    return open_gated
