"""What was asked for, found: the checkpoint, which of its tensors are wanted, and who else loads it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._budget import host_headroom
from fastload._fetch.checkpoint.config import is_quantised
from fastload._group.process_group import find_position
from fastload._load.group.load_group import join
from fastload._load.request.request import choose_tensors
from fastload._load.request.shard import EVERYTHING, choose_parts, merge_shard
from fastload._load.request.wanted import Wanted, list_wanted
from fastload._place.tensors import check_castable, check_layouts
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastload._clock import Clock
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._load.group.load_group import LoadGroup
    from fastload._load.request.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Wanted):
    """What is wanted of the checkpoint, and who loads it."""

    group: LoadGroup


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
        group: LoadGroup = join(request)
        undo.enter_context(group)
        fetched = group.fetch(call.verb, call.device, call.when_weighed)
        undo.callback(fetched.close)
        clock.enter("plan")
        found = _find(fetched, choose_tensors(fetched.checkpoint, request.tensors), group)
        group.check_content(fetched, found.infos)
        check_layouts(found.infos)
        position = find_position(None if request.group is None else request.group.member)
        parts = choose_parts(merge_shard(request.shard, call.sharded), found.infos, position)
        if parts is not EVERYTHING:
            found = found.kept_by(parts)
        yield found
        undo.pop_all()


def _find(fetched: Fetched, wanted: Callable[[str], bool], group: LoadGroup) -> Found:
    infos = list_wanted(fetched, wanted, EVERYTHING)
    headroom = host_headroom().part_of(len(group.ranks_here))
    return Found(fetched=fetched, wanted=wanted, infos=infos, parts=EVERYTHING, group=group, headroom=headroom)


def check_cast(found: Found, subfolder: str | None) -> None:
    """Raise ``UsageError`` where casting could change what the weights mean."""
    check_castable(found.infos)
    if is_quantised(found.fetched, subfolder):
        what = "a model whose config.json has a quantization_config cannot be cast"
        raise UsageError(what, "Load it as it is stored: without dtype=, into parameters of the stored dtypes")
