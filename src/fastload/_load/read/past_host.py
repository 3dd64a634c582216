"""May extents of this load go to the device past the host, and from when on? docs/gpu.md has the questions in order."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from fastload._load.read.device_reads import DeviceReads
from fastload._read.gds_checks import check_file, check_machine
from fastload._read.gds_health import process_health
from fastload._read.gds_switch import Device, GdsSwitch
from fastload._read.measured import Measured
from fastload.errors import MemoryBudgetError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._format.checkpoint import Checkpoint
    from fastload._load.prove.proving import Proving
    from fastload._place.device_digests import DeviceDigests
    from fastload._plan.plan import Plan
    from fastload._read.choose import Choice
    from fastload.options import Settings

_NAME = "gds"
_HINT = 'Use reader="auto", which takes it where it can'


@dataclass(frozen=True, slots=True)
class Journey:
    """A load to a device, planned and not begun."""

    checkpoint: Checkpoint
    plan: Plan
    choices: Mapping[int, Choice]
    """The readers of the host, by shard."""
    proving: Proving
    digests: DeviceDigests | None
    check_room: Callable[[], None]
    """Raises ``MemoryBudgetError`` where the device has no room for what storage writes to."""


def open_device_reads(journey: Journey, device: torch.device, settings: Settings) -> DeviceReads | None:
    """The way past the host for a load to ``device``; None where that is no CUDA device.

    Raises:
        UsageError: GPUDirect Storage is asked for by name and switched off.
        UnsupportedError: it is asked for by name, and cannot serve.
        MemoryBudgetError: likewise, for want of device memory.
    """
    is_required = settings.reader == _NAME
    if device.type != "cuda":
        if is_required:
            raise UnsupportedError('reader="gds" serves CUDA devices only', _HINT)
        return None
    if is_required and settings.gds == "off":
        raise UsageError("reader is gds, but gds is off", "Leave out one of them")
    served, why = _admit(journey, settings)
    if is_required:
        _require(journey, served, why)
    switch = GdsSwitch(process_health(), device.index, why)
    reads = DeviceReads(journey.checkpoint.shards, served, journey.plan.extents, switch, is_required=is_required)
    if is_required and served:
        switch.turn_on(journey.checkpoint.shards[min(served)])
    elif served:
        reads.when_begun(_opening(switch, journey, min(served), device, settings))
    return reads


def _admit(journey: Journey, settings: Settings) -> tuple[frozenset[int], str]:
    """The shards that may go past the host; and why none, or not all, may."""
    why = _check_load(settings) or _check_room(journey, is_required=settings.reader == _NAME)
    if why:
        return frozenset(), why
    reasons: dict[int, str] = {}
    for number in journey.choices:
        shard = journey.checkpoint.shards[number]
        allows_cached = settings.reader == _NAME
        on_host = _check_choice(journey, number)
        reasons[number] = on_host or check_file(shard, allows_cached=allows_cached)
    refused = next(filter(None, reasons.values()), "nothing is to be read")
    served = [number for number, reason in reasons.items() if not reason]
    mounts = {number: journey.checkpoint.shards[number].identity.dev for number in served}
    if settings.gds == "auto" and settings.reader != _NAME:  # a verdict holds for one mount
        served = [number for number in served if mounts[number] == mounts[served[0]]]
    return frozenset(served), refused


def _check_choice(journey: Journey, number: int) -> str:
    if journey.choices[number].is_paced:
        return "max_rate is kept by reads of the host"
    return "its digest is one of the whole file, which the CPU takes" if number in journey.proving.on_host else ""


def _check_load(settings: Settings) -> str:
    """The cheap questions first, and none of another load's."""
    if settings.gds == "off":
        return "gds is off"
    if settings.reader not in {"auto", _NAME}:
        return f"reader is {settings.reader}"
    if find_spec("kvikio") is None:
        return "kvikio is not installed"
    if settings.gds == "auto" and settings.reader == "auto" and torch.cuda.device_count() > 1:
        return "several devices are visible, and cuFile makes a context on each (CUDA_VISIBLE_DEVICES)"
    return check_machine(settings.cufile)


def _check_room(journey: Journey, *, is_required: bool) -> str:
    try:
        journey.check_room()
    except MemoryBudgetError:
        if is_required:
            raise
        return "the device has no room left for memory that storage writes to"
    return ""


def _require(journey: Journey, served: frozenset[int], why: str) -> None:
    if len(served) < len(journey.choices):
        raise UnsupportedError(f'reader="gds" cannot serve this load: {why}', _HINT)
    if journey.digests is not None:
        journey.digests.require()


def _opening(
    switch: GdsSwitch, journey: Journey, number: int, device: torch.device, settings: Settings
) -> Callable[[], None]:
    """What finds out beside the load whether it is on."""
    shard = journey.checkpoint.shards[number]
    if settings.gds == "on":
        return lambda: switch.turn_on_beside(shard)
    properties = torch.cuda.get_device_properties(device)
    name = str(getattr(properties, "uuid", properties.name))  # torch before 2.6 has no uuid
    known = Device(name, journey.plan.read_bytes)
    return lambda: switch.decide(shard, known, Measured(settings.measurements))
