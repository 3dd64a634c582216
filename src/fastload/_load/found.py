"""What was asked for, found: the checkpoint, which of its tensors are wanted, and who else loads it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastload._budget import host_headroom
from fastload._fetch.checkpoint.config import is_quantised
from fastload._group.process_group import find_position
from fastload._load.group.party import join
from fastload._load.request import choose_tensors
from fastload._load.shard import EVERYTHING, Parts, choose_parts, merge_shard
from fastload._place.tensors import check_castable, check_layouts
from fastload._plan.ranges import unite
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from fastload._budget import Headroom
    from fastload._clock import Clock
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.header import TensorInfo
    from fastload._load.group.party import Company
    from fastload._load.request import Request
    from fastload._plan.ranges import Range, Ranges, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The checkpoint that was asked for, and what is wanted of it."""

    fetched: Fetched
    wanted: Callable[[str], bool]
    infos: Sequence[TensorInfo]
    """The wanted tensors, in file order; of those that are sharded, the rows that are kept."""
    parts: Parts
    party: Company
    """Who loads it."""
    headroom: Headroom
    """What each rank here may take of the machine's memory, as it was when all was found; who allocates looks again."""

    def only(self, names: Container[str]) -> Found:
        """Without the tensors that are not among ``names``."""
        return self._narrowed(lambda name: name in names and self.wanted(name), self.parts)

    def kept_by(self, parts: Parts) -> Found:
        """Only what ``parts`` keeps of it."""
        return self._narrowed(lambda name: self.wanted(name) and parts.keeps(name), parts)

    def _narrowed(self, wanted: Callable[[str], bool], parts: Parts) -> Found:
        return replace(self, wanted=wanted, parts=parts, infos=_list_wanted(self.fetched, wanted, parts))

    @property
    def shaped(self) -> list[TensorInfo]:
        """The wanted tensors in the shapes in which they are handed out."""
        return [self.parts.shape(info) for info in self.infos]

    @property
    def cuts(self) -> dict[str, tuple[Ranges, ...]]:
        """What stays, by name, in each dimension of tensors of which more is brought."""
        return self.parts.further(self.infos)

    @property
    def spread(self) -> Spread:
        """The bytes of the wanted tensors."""
        ranges: list[list[Range]] = [[] for _ in self.fetched.checkpoint.shards]
        for shard, info in self.fetched.checkpoint.tensors():
            if self.wanted(info.name):
                ranges[shard] += self.parts.ranges(info)
        return tuple(map(unite, ranges))


@dataclass(frozen=True, slots=True)
class Call:
    """What was called, and what is there already."""

    verb: str
    device: str
    """The kind of it: all ranks of a group must have called the same, for the same."""
    when_weighed: Callable[[Evidence], object]
    """Is told what proves the model, before the headers are read if it can be."""
    sharded: Mapping[str, object] = field(default_factory=dict)
    """DTensors that are there, by name."""


@contextmanager
def finding(request: Request, clock: Clock, call: Call) -> Iterator[Found]:
    """Resolve and read the headers; what was opened for that is closed again if the ``with`` ends by an error.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        UnsupportedError: a wanted tensor has a dtype that this torch lacks.
        GroupError: another rank failed, or wants something else.
    """
    with ExitStack() as undo:
        party: Company = join(request)
        undo.enter_context(party)
        fetched = party.fetch(call.verb, call.device, call.when_weighed)
        undo.callback(fetched.close)
        clock.enter("plan")
        found = _find(fetched, choose_tensors(fetched.checkpoint, request.tensors), party)
        party.check_content(fetched, found.infos)
        check_layouts(found.infos)
        position = find_position(None if request.group is None else request.group.seat)
        parts = choose_parts(merge_shard(request.shard, call.sharded), found.infos, position)
        if parts is not EVERYTHING:
            found = found.kept_by(parts)
        yield found
        undo.pop_all()


def _find(fetched: Fetched, wanted: Callable[[str], bool], party: Company) -> Found:
    infos = _list_wanted(fetched, wanted, EVERYTHING)
    headroom = host_headroom().part_of(len(party.ranks_here))
    return Found(fetched=fetched, wanted=wanted, infos=infos, parts=EVERYTHING, party=party, headroom=headroom)


def _list_wanted(fetched: Fetched, wanted: Callable[[str], bool], parts: Parts) -> list[TensorInfo]:
    return [parts.narrow(info) for _, info in fetched.checkpoint.tensors() if wanted(info.name)]


def check_cast(found: Found, subfolder: str | None) -> None:
    """Raise ``UsageError`` where casting could change what the weights mean."""
    check_castable(found.infos)
    if is_quantised(found.fetched, subfolder):
        what = "a model whose config.json has a quantization_config cannot be cast"
        raise UsageError(what, "Load it as it is stored: without dtype=, into parameters of the stored dtypes")
