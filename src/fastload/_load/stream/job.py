"""What one load consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fastload._clock import Busy, Clock
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.deadline import Deadline
    from fastload._load.group.load_group import LoadGroup
    from fastload._load.prove.proving import Proving
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.exchange import Exchange
    from fastload._load.read.held import Held
    from fastload._load.read.schedule import Schedule
    from fastload._load.read.sources import Sources
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Ranges
    from fastload._progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that one load needs, decided and checked, nothing of it begun."""

    fetched: Fetched
    plan: Plan
    proving: Proving
    held: Held
    sources: Sources
    schedule: Schedule
    placer: Placer
    deadline: Deadline
    lanes: int
    """Threads that read."""
    device: torch.device
    digests: DeviceDigests | None
    device_reads: DeviceReads | None
    """The way past the host; None where there is no device."""
    is_cast: bool
    """True if tensors are cast as they are taken, by the thread that takes them."""
    cuts: Mapping[str, tuple[Ranges, ...]]
    """What stays, by name, in each dimension of tensors of which more was brought."""
    group: LoadGroup
    """Who carries it out."""
    exchange: Exchange | None
    clock: Clock
    busy: Busy
    progress: Progress
