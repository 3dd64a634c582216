"""From a request to a job: resolve, choose readers, divide staging, plan, check that it fits. Only headers are read."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastload._clock import TURN, Busy
from fastload._fetch.checkpoint import Fetched, fetch
from fastload._fetch.config import is_quantised
from fastload._group.process_group import find_position, find_seat
from fastload._load.group.dividing import Wish
from fastload._load.group.party import Party
from fastload._load.proving import OFF, is_whole, prove, require
from fastload._load.request import choose_tensors
from fastload._load.schedule import Schedule
from fastload._load.shard import EVERYTHING, Parts, choose_parts, merge_shard
from fastload._load.sources import Sources
from fastload._load.staging import Staging, divide_staging
from fastload._load.stream import Job, Stream
from fastload._place.budget import host_headroom
from fastload._place.host import open_passing
from fastload._place.tensors import check_castable, torch_layout
from fastload._plan.plan import build_plan
from fastload._plan.ranges import unite
from fastload._progress import choose_progress
from fastload._read.proof import ProofTell
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    import torch

    from fastload._clock import Clock
    from fastload._fetch.deadline import Deadline
    from fastload._fetch.through import Copy
    from fastload._format.checkpoint import Checkpoint
    from fastload._format.header import TensorInfo
    from fastload._load.group.exchange import Exchange, Tee
    from fastload._load.proving import Proving
    from fastload._load.request import Request
    from fastload._load.target import Target
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Range, Spread
    from fastload._plan.share import Share
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
    """The wanted tensors, in file order; of those that are sharded, the rows that are kept."""
    parts: Parts = EVERYTHING
    party: Party | None = None
    """The other ranks, where several load together."""

    def only(self, names: Container[str]) -> Found:
        """Without the tensors that are not among ``names``."""
        wanted = _want(self.fetched, lambda name: name in names and self.wanted(name), self.parts)
        return replace(wanted, party=self.party)

    @property
    def shaped(self) -> list[TensorInfo]:
        """The wanted tensors in the shapes in which they are handed out."""
        return [self.parts.shape(info) for info in self.infos]

    @property
    def cuts(self) -> dict[str, tuple[slice, ...]]:
        """What stays, by name, of tensors that are read as a whole."""
        return self.parts.further(self.infos)

    @property
    def spread(self) -> Spread:
        """The bytes of the wanted tensors."""
        ranges: list[list[Range]] = [[] for _ in self.fetched.checkpoint.shards]
        for shard, info in self.fetched.checkpoint.tensors():
            if self.wanted(info.name):
                part = self.parts.narrow(info)
                ranges[shard].append((part.begin, part.end))
        return tuple(map(unite, ranges))


@contextmanager
def finding(
    request: Request, clock: Clock, verb: str, device: str, sharded: Mapping[str, object] = MappingProxyType({})
) -> Iterator[Found]:
    """Resolve and read the headers; what was opened for that is closed again if the ``with`` ends by an error.

    Args:
        request: what the caller wants.
        clock: leaves the stage of resolving.
        verb: which function was called, on a device of which kind: all ranks of a group must have done the same.
        device: see ``verb``.
        sharded: DTensors that are there already, by name.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        UnsupportedError: a wanted tensor has a dtype that this torch lacks.
    """
    with ExitStack() as undo:
        party = None if request.group is None else undo.enter_context(Party(find_seat(request.group), request))
        if party is None:
            fetched = fetch(request.source, request.settings, request.deadline)
        else:
            fetched = party.fetch(verb, device)
        undo.callback(fetched.close)
        clock.enter("plan")
        found = _want(fetched, choose_tensors(fetched.checkpoint, request.tensors), EVERYTHING)
        if party is not None:
            party.check_content(fetched, found.infos)
        for info in found.infos:
            torch_layout(info)
        parts = choose_parts(merge_shard(request.shard, sharded), found.infos, find_position(request.group))
        wanted = found.wanted
        yield replace(_want(fetched, lambda name: wanted(name) and parts.keeps(name), parts), party=party)
        undo.pop_all()


def _want(fetched: Fetched, wanted: Callable[[str], bool], parts: Parts) -> Found:
    infos = [parts.narrow(info) for _, info in fetched.checkpoint.tensors() if wanted(info.name)]
    return Found(fetched=fetched, wanted=wanted, infos=infos, parts=parts)


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
    checkpoint, settings, deadline, party = found.fetched.checkpoint, request.settings, request.deadline, found.party
    choices = deadline.within(lambda: _choose_readers(found, settings.reader))
    depth = _find_depth(choices.values(), digests=found.fetched.evidence.has_blocks)
    peers = 0 if party is None else party.communicator.size - 1
    wish = Staging(depth + peers, target.slots_per_lane, target.extent_bytes)
    staging = divide_staging(settings.staging_bytes, host_headroom(), wish)
    with ExitStack() as undo:
        begun: _Begun = None, None
        if party is not None:  # what the first rank of a machine keeps, it must get: the others are told before
            begun = _begin_for_all(found, party, deadline)
            undo.callback(_let_go, begun)
        plan, share, staging = _plan(found, target, staging, keeps_copy=begun[1] is not None)
        readers = max(1, min(staging.lanes - peers, len(plan.extents)))
        target.check_room(plan, staging._replace(lanes=readers + peers))
        schedule = Schedule(plan.extents, window_bytes=target.window_bytes, deadline=deadline, share=share)
        busy = Busy()
        tell = ProofTell(
            found.fetched.tally, lambda: busy.measure("hash"), lambda: busy.measure(TURN), schedule.is_stopped
        )
        proving = prove(checkpoint, plan, choices, found.fetched.evidence, tell)
        proving = _judge(proving if party is None else party.share_proof(proving), checkpoint, settings)
        placer = target.open_placer(plan, staging.slot_bytes)
        if party is None:  # last, since it takes longest to undo
            begun = deadline.within(lambda: _begin(found.fetched), _let_go)
            undo.callback(_let_go, begun)
        reading, copy = begun
        choices = proving.choices
        if copy is not None:
            choices = {shard: _teed(choice, copy, found.fetched.root, busy) for shard, choice in choices.items()}
        stream = Stream(
            Job(
                fetched=found.fetched,
                plan=plan,
                proving=proving,
                copy=copy,
                reading=reading,
                is_whole=is_whole(checkpoint, plan),
                sources=Sources(checkpoint.shards, choices, [plan.extents[number] for number in schedule.own]),
                schedule=schedule,
                placer=placer,
                deadline=deadline,
                lanes=readers,
                device=device,
                digests=target.digests,
                cuts=found.cuts,
                party=party,
                exchange=_open_exchange(found, plan, share, staging.slot_bytes, _tee_arrivals(found, copy, busy)),
                clock=clock,
                busy=busy,
                progress=choose_progress(request.progress, schedule.kept_bytes),
            )
        )
        undo.pop_all()
    return stream


def _open_exchange(found: Found, plan: Plan, share: Share | None, slot_bytes: int, tee: Tee) -> Exchange | None:
    if found.party is None or share is None:
        return None
    return found.party.open_exchange(share, open_passing(plan, slot_bytes), tee)


def _judge(proving: Proving, checkpoint: Checkpoint, settings: Settings) -> Proving:
    """``proving``, if it is as much as the settings demand."""
    if settings.verify == "require":
        require(proving, checkpoint, "verify is require")
    elif settings.signature_key is not None and proving.reason:
        require(proving, checkpoint, "signature_key is set")
    return replace(proving, reason=OFF) if settings.verify == "off" else proving


def _plan(found: Found, target: Target, staging: Staging, *, keeps_copy: bool) -> tuple[Plan, Share | None, Staging]:
    """What is read, and this rank's share of it where there are others."""
    fetched, party, parts = found.fetched, found.party, found.parts
    if party is None:
        plan = build_plan(
            fetched.checkpoint, found.wanted, target.lay_out, extent_bytes=staging.slot_bytes, narrow=parts.narrow
        )
        if target.window_bytes is None and not fetched.evidence.has_blocks:
            plan = plan.interleaved(_SHARDS_AT_ONCE)  # a digest of a whole file is one core's work
        return plan, None, staging
    files = tuple(((0, shard.header.file_bytes),) for shard in fetched.checkpoint.shards)
    needs_whole_files = any(
        known.blocks is None for shard in fetched.checkpoint.shards if (known := fetched.evidence.find(shard.path))
    )
    spread = files if keeps_copy else found.spread
    common = party.share_wishes(Wish(spread, staging.slot_bytes, target.window_bytes, needs_whole_files))
    staging = staging._replace(slot_bytes=common.extent_bytes)
    plan = build_plan(
        fetched.checkpoint,
        found.wanted,
        target.lay_out,
        extent_bytes=common.extent_bytes,
        narrow=parts.narrow,
        others=common.spread,
    )
    plan = common.order(plan)
    return plan, party.take_share(common, plan), staging


_Begun = tuple["Reading | None", "Copy | None"]


def _begin_for_all(found: Found, party: Party, deadline: Deadline) -> _Begun:
    """One rank of a machine makes the copy; all show that they are reading."""
    fetched = found.fetched if party.is_first_on_node else replace(found.fetched, begin_copy=lambda: None)
    return deadline.within(lambda: _begin(fetched), _let_go)


def _tee_arrivals(found: Found, copy: Copy | None, busy: Busy) -> Tee:
    """Gives a reader of what other ranks send, which feeds the copy too."""
    if copy is None:
        return lambda _, reader: reader
    shards, root = found.fetched.checkpoint.shards, found.fetched.root

    def tee(shard: int, reader: Reader) -> Reader:
        return copy.wrap(_path_in(shards[shard].path, root), reader, lambda: busy.measure("write"))

    return tee


def _begin(fetched: Fetched) -> _Begun:
    return fetched.begin_reading(), fetched.begin_copy()


def _let_go(begun: _Begun) -> None:
    for each in begun:
        if each is not None:
            each.close()


def _find_depth(choices: Iterable[Choice], *, digests: bool) -> int:
    """How many workers the readers of a load want."""
    wishes = [choice.digesting_depth if digests and choice.digesting_depth else choice.depth for choice in choices]
    return max(wishes, default=1)


def _choose_readers(found: Found, wanted: str) -> dict[int, Choice]:
    """A reader per shard that holds a wanted tensor."""
    fetched = found.fetched
    checkpoint = fetched.checkpoint
    if found.party is not None:  # what this rank will read is not known yet
        return {n: fetched.choose(shard, wanted) for n, shard in enumerate(checkpoint.shards) if found.party.reads}
    shards = {shard for shard, info in checkpoint.tensors() if found.wanted(info.name)}
    return {shard: fetched.choose(checkpoint.shards[shard], wanted) for shard in sorted(shards)}


def _teed(choice: Choice, copy: Copy, root: str, busy: Busy) -> Choice:
    """``choice``, whose readers feed the copy too; what is on a mount lies below ``root``."""

    def open_teed(file: File) -> Reader:
        return copy.wrap(_path_in(file.path, root), choice.open(file), lambda: busy.measure("write"))

    return replace(choice, open=open_teed)


def _path_in(path: str, root: str) -> str:
    return os.path.relpath(path, root) if os.path.isabs(path) else path
