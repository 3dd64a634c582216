"""From a request to a job: resolve, choose readers, divide staging, plan, check that it fits. Only headers are read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._clock import TURN, Busy
from fastload._fetch.checkpoint import Fetched, fetch
from fastload._fetch.config import is_quantised
from fastload._load.depth import tune
from fastload._load.past_host import Journey, open_device_reads
from fastload._load.proving import OFF, prove, require
from fastload._load.request import choose_tensors
from fastload._load.schedule import Schedule
from fastload._load.sources import Sources
from fastload._load.staging import Staging, divide_staging
from fastload._load.stream import Job, Stream
from fastload._place.budget import host_headroom
from fastload._place.tensors import check_castable, torch_layout
from fastload._plan.plan import build_plan
from fastload._progress import choose_progress
from fastload._read.measured import Measured
from fastload._read.proof import ProofTell
from fastload.errors import MemoryBudgetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    import torch

    from fastload._clock import Clock
    from fastload._fetch.evidence import Evidence
    from fastload._fetch.through import Copy
    from fastload._format.header import TensorInfo
    from fastload._load.device_reads import DeviceReads
    from fastload._load.request import Request
    from fastload._load.target import Target
    from fastload._plan.plan import Plan
    from fastload._read.choose import Choice
    from fastload._read.reader import File, Reader
    from fastload._store.keep.reading import Reading
    from fastload.options import Settings

_SHARDS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The checkpoint that was asked for, and what is wanted of it."""

    fetched: Fetched
    wanted: Callable[[str], bool]
    infos: Sequence[TensorInfo]
    """The wanted tensors, in file order."""

    def only(self, names: Container[str]) -> Found:
        """Without the tensors that are not among ``names``."""
        return _want(self.fetched, lambda name: name in names and self.wanted(name))


@contextmanager
def finding(request: Request, clock: Clock, weighed: Callable[[Evidence], object] = lambda _: None) -> Iterator[Found]:
    """Resolve and read the headers; what was opened for that is closed again if the ``with`` ends by an error.

    ``weighed`` is told what proves the model, before the headers are read if it can be.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        UnsupportedError: a wanted tensor has a dtype that this torch lacks.
    """
    fetched = fetch(request.source, request.settings, request.deadline, weighed)
    try:
        clock.enter("plan")
        found = _want(fetched, choose_tensors(fetched.checkpoint, request.tensors))
        for info in found.infos:
            torch_layout(info)
        yield found
    except BaseException:
        fetched.close()
        raise


def _want(fetched: Fetched, wanted: Callable[[str], bool]) -> Found:
    infos = [info for _, info in fetched.checkpoint.tensors() if wanted(info.name)]
    return Found(fetched=fetched, wanted=wanted, infos=infos)


def check_cast(found: Found, subfolder: str | None) -> None:
    """Raise ``UsageError`` where casting could change what the weights mean."""
    check_castable(found.infos)
    if is_quantised(found.fetched, subfolder):
        what = "a model whose config.json has a quantization_config cannot be cast"
        raise UsageError(what, "Load it as it is stored: without dtype=, into parameters of the stored dtypes")


def prepare(request: Request, found: Found, target: Target, device: torch.device, clock: Clock) -> Stream:
    """The stream that brings what was ``found`` to ``target``, memory of ``device``.

    Raises:
        MemoryBudgetError: it would not fit.
        UsageError: ``staging_bytes`` is too small for the device.
    """
    checkpoint, settings, deadline = found.fetched.checkpoint, request.settings, request.deadline
    choices = deadline.within(lambda: _choose_readers(found, settings))
    is_device, digests = device.type != "cpu", found.fetched.evidence.has_blocks
    depth = max((_find_depth(choice, is_device, digests) for choice in choices.values()), default=1)
    wish = Staging(depth, target.slots_per_lane, target.extent_bytes)
    staging = divide_staging(settings.staging_bytes, host_headroom(), wish)
    plan = build_plan(checkpoint, found.wanted, target.lay_out, extent_bytes=staging.slot_bytes)
    if target.window_bytes is None and not found.fetched.evidence.has_blocks:
        plan = plan.interleaved(_SHARDS_AT_ONCE)  # a digest of a whole file is one core's work
    staging = staging._replace(lanes=min(staging.lanes, len(plan.extents)))
    staging = _fit(target, plan, staging)
    schedule = Schedule(plan.extents, window_bytes=target.window_bytes, deadline=deadline)
    busy = Busy()
    tell = ProofTell(found.fetched.tally, lambda: busy.measure("hash"), lambda: busy.measure(TURN), schedule.is_stopped)
    proving = prove(checkpoint, plan, choices, found.fetched.evidence, tell)
    if settings.verify == "require":
        require(proving, checkpoint, "verify is require")
    elif settings.signature_key is not None and proving.reason:
        require(proving, checkpoint, "signature_key is set")
    if settings.verify == "off":
        proving = replace(proving, reason=OFF)
    choices = proving.choices
    journey = Journey(
        checkpoint=checkpoint,
        plan=plan,
        proving=proving,
        digests=target.digests,
        check_room=lambda: target.check_room(plan, staging._replace(landing_slots=1)),
    )
    device_reads = deadline.within(lambda: open_device_reads(journey, device, settings))
    placer = target.open_placer(plan, staging.slot_bytes)
    # Last, since nothing that fails from here on would close them.
    reading, copy = deadline.within(lambda: _begin(found.fetched, settings, device_reads), _let_go)
    if copy is not None:
        choices = {shard: _teed(choice, copy, found.fetched.root, busy) for shard, choice in choices.items()}
    return Stream(
        Job(
            fetched=found.fetched,
            plan=plan,
            proving=proving,
            copy=copy,
            reading=reading,
            is_whole=len(found.infos) == sum(1 for _ in checkpoint.tensors()),
            sources=Sources(checkpoint.shards, choices, plan.extents),
            schedule=schedule,
            placer=placer,
            deadline=deadline,
            lanes=staging.lanes,
            device=device,
            digests=target.digests,
            device_reads=device_reads,
            clock=clock,
            busy=busy,
            progress=choose_progress(request.progress, plan.read_bytes),
        )
    )


def _begin(
    fetched: Fetched, settings: Settings, device_reads: DeviceReads | None
) -> tuple[Reading | None, Copy | None]:
    """A copy passes through the host, so there is none of what shall pass by it by name."""
    reading = fetched.begin_reading()
    copy = None if settings.reader == "gds" else fetched.begin_copy()
    if copy is not None and device_reads is not None:
        device_reads.refuse("what is kept on the local tier passes through the host")
    return reading, copy


def _let_go(begun: tuple[Reading | None, Copy | None]) -> None:
    for each in begun:
        if each is not None:
            each.close()


def _fit(target: Target, plan: Plan, staging: Staging) -> Staging:
    """``staging``, with fewer lanes where ``plan`` fits only beside fewer; extents stay as they are.

    Raises:
        MemoryBudgetError: it does not fit beside a single one.
    """
    while True:
        try:
            target.check_room(plan, staging)
        except MemoryBudgetError:
            if staging.lanes == 1:
                raise
            staging = staging._replace(lanes=staging.lanes // 2)
        else:
            return staging


def _find_depth(choice: Choice, is_device: bool, digests: bool) -> int:  # noqa: FBT001 - two facts of the load
    """How many workers a reader wants."""
    if is_device and choice.device_depth:
        return choice.device_depth
    return choice.digesting_depth if digests and choice.digesting_depth else choice.depth


def _choose_readers(found: Found, settings: Settings) -> dict[int, Choice]:
    """A reader per shard that holds a wanted tensor."""
    fetched = found.fetched
    checkpoint = fetched.checkpoint
    shards = {shard for shard, info in checkpoint.tensors() if found.wanted(info.name)}
    choices = {shard: fetched.choose(checkpoint.shards[shard], settings.reader) for shard in sorted(shards)}
    return tune(choices, checkpoint.shards, Measured(settings.measurements))


def _teed(choice: Choice, copy: Copy, root: str, busy: Busy) -> Choice:
    """``choice``, whose readers feed the copy too; what is on a mount lies below ``root``."""

    def open_teed(file: File) -> Reader:
        path = os.path.relpath(file.path, root) if os.path.isabs(file.path) else file.path
        return copy.wrap(path, choice.open(file), lambda: busy.measure("write"))

    return replace(choice, open=open_teed)
