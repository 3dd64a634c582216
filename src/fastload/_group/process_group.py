"""What is read of the caller's process group: who we are in it, and the store that its ranks share.

None of its collectives is ever called. Whoever imports this need not have torch; whoever calls it has.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload._group.address import ANYWHERE
from fastload._group.rendezvous import GroupMember
from fastload._group.turns import find_turns
from fastload.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributed import ProcessGroup

    from fastload._group.rendezvous_store import Store


class Position(NamedTuple):
    """One rank's place in a row of ranks."""

    rank: int
    size: int


def find_position(member: GroupMember | None) -> Position | None:
    """This rank's position in the group of this ``member``, or in the default group; None: there is none."""
    if member is not None:
        return Position(member.rank, member.size)
    import torch.distributed as dist  # noqa: PLC0415 - here and below: see above

    if not dist.is_available() or not dist.is_initialized():
        return None
    return Position(dist.get_rank(), dist.get_world_size())


def find_member(group: object) -> GroupMember:
    """This rank as a member of ``group``.

    Raises:
        UsageError: it is no process group, or this rank is not in it.
        UnsupportedError: this torch was built without torch.distributed, or the group has no store.
    """
    import torch.distributed as dist  # noqa: PLC0415

    if not dist.is_available():
        raise UnsupportedError("this torch was built without torch.distributed", "Install one with it, or leave group=")
    if not isinstance(group, dist.ProcessGroup):
        what = (
            "a group that this rank is not in" if group == dist.GroupMember.NON_GROUP_MEMBER else type(group).__name__
        )
        raise UsageError(f"group= got {what}", "Give a torch.distributed.ProcessGroup, such as dist.group.WORLD")
    store = _find_store(group)
    return GroupMember(group.rank(), group.size(), store, _find_host(store), find_turns(group))


def _find_store(group: ProcessGroup) -> Any:
    """Where the ranks of ``group``, and no others, can leave each other word: in the store of all ranks, by its ranks.

    Not by its name, nor in its own store. Groups that were split off another one (the rows of a mesh, with NCCL) had
    one name for all of them in some versions of torch, in others ranks of one group may have counted up to different
    names for it, and their stores lie in one by the name of the group that they were split off. A backend that is
    written in Python tells its group of no store.
    """
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store  # noqa: PLC0415

    try:
        ranks = dist.get_process_group_ranks(group)
    except KeyError:  # made by hand: torch was not told which ranks they are, and the store is the group's own
        store = group.get_group_store() if hasattr(group, "get_group_store") else None  # torch may be older
        if store is None:
            raise UnsupportedError(
                "this process group has no store", "Make it by torch.distributed.new_group"
            ) from None
        return store
    return PrefixStore(_name_of(group, ranks), _get_default_store())


def _name_of(group: ProcessGroup, ranks: Sequence[int]) -> str:
    """A digest of the ``ranks``, of which there may be thousands, and which of their groups this is.

    Two groups of the same ranks may load at the same time. All ranks make their groups in one order (torch demands it),
    and those of the same ranks are the same ones everywhere, whatever other groups a rank is in.
    """
    from torch.distributed.distributed_c10d import _world  # noqa: PLC0415

    members = set(ranks)
    alike = [each for each, known in _world.pg_group_ranks.items() if known.keys() == members]
    return f"fastload-{hashlib.sha256(repr(sorted(ranks)).encode()).hexdigest()[:16]}-{alike.index(group)}"


def _find_host(store: Store | Any) -> str | None:
    """Where the store is served; None for one that no other machine can have, anywhere for one that is a file."""
    from torch._C._distributed_c10d import FileStore  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore  # noqa: PLC0415

    while isinstance(store, PrefixStore):
        store = store.underlying_store
    if isinstance(store, FileStore):  # on a mount that several machines share, perhaps
        return ANYWHERE
    host = getattr(store, "host", None)
    return host if isinstance(host, str) else None
