"""Who reads which extent of a plan that several ranks carry out together, and by which way it comes to the others.

Each extent has one *owner*, which reads and proves it. From there it goes along a tree: straight to the other ranks of
the owner's node, and to one rank of each further node (the *relay*), which passes it on to its own. So a byte leaves
storage once, and a node once, however many ranks there are. All ranks reckon the same from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastload._plan.extent import Extent

    Tree = Mapping[int, tuple[int, ...]]
    """To which ranks each rank passes on what it has."""


@dataclass(frozen=True, slots=True)
class Member:
    """One rank of those that load together."""

    rank: int
    node: int
    reads: bool
    """True if its node has the model."""


def own_by_stripes(extents: Sequence[Extent], readers: Sequence[int], *, stripe_bytes: int) -> tuple[int, ...]:
    """The owner of each extent: every reader gets stripes of the files in turn, as many bytes as the others.

    Stripes and not one part of the files each, because tensors are handed out in file order: whoever has the beginning
    would read alone at first. Within its stripes a reader goes forward.
    """
    loads = dict.fromkeys(readers, 0)
    owners: list[int] = []
    for stripe in _cut_stripes(extents, stripe_bytes):
        owner = min(loads, key=lambda rank: loads[rank])
        loads[owner] += sum(extent.length for extent in stripe)
        owners += [owner] * len(stripe)
    return tuple(owners)


def _cut_stripes(extents: Sequence[Extent], stripe_bytes: int) -> Iterator[Sequence[Extent]]:
    """Runs of extents that follow one another in a file, of ``stripe_bytes`` or a little less; at least one extent."""
    begin, length = 0, 0
    for number, extent in enumerate(extents):
        follows = number > begin and extent.shard == extents[number - 1].shard
        if number > begin and (not follows or length + extent.length > stripe_bytes):
            yield extents[begin:number]
            begin, length = number, 0
        length += extent.length
    if begin < len(extents):
        yield extents[begin:]


def own_by_files(extents: Sequence[Extent], readers: Sequence[int]) -> tuple[int, ...]:
    """The owner of each extent where a file is proven by a digest of the whole: all of a file is one rank's.

    The largest files are given out first, each to the rank that has the least.
    """
    sizes: dict[int, int] = {}
    for extent in extents:
        sizes[extent.shard] = sizes.get(extent.shard, 0) + extent.length
    loads = dict.fromkeys(readers, 0)
    owner_of: dict[int, int] = {}
    for shard in sorted(sizes, key=lambda number: (-sizes[number], number)):
        owner_of[shard] = min(loads, key=lambda rank: loads[rank])
        loads[owner_of[shard]] += sizes[shard]
    return tuple(owner_of[extent.shard] for extent in extents)


def choose_pools(members: Sequence[Member]) -> tuple[tuple[Member, ...], ...]:
    """Which ranks share their reading: a node that has the model, with those it supplies that have not.

    Nodes without the model are dealt to those with it in turn. There is no pool where no node has it.
    """
    by_node: dict[int, list[Member]] = {}
    for member in members:
        by_node.setdefault(member.node, []).append(member)
    having = [node for node, ranks in by_node.items() if ranks[0].reads]
    pools = {node: list(by_node[node]) for node in having}
    lacking = [node for node in by_node if node not in pools]
    for number, node in enumerate(lacking if having else []):
        pools[having[number % len(having)]] += by_node[node]
    return tuple(tuple(pool) for pool in pools.values())


def find_sources(pool: Sequence[Member], rank: int) -> frozenset[int]:
    """From which ranks something may come to ``rank``."""
    trees = (grow_tree(pool, owner.rank) for owner in pool if owner.reads)
    return frozenset(parent for tree in trees for parent, children in tree.items() if rank in children)


def grow_tree(pool: Sequence[Member], owner: int) -> Tree:
    """The way of what ``owner`` reads through its pool.

    Nodes form a chain, so that none sends more than once the bytes to another; the relays take turns by owner, so that
    all of a node's ranks share the work.
    """
    by_node: dict[int, list[int]] = {}
    for member in pool:
        by_node.setdefault(member.node, []).append(member.rank)
    home = next(member.node for member in pool if member.rank == owner)
    turn = by_node[home].index(owner)
    children: dict[int, list[int]] = {member.rank: [] for member in pool}
    head = owner
    for node in (home, *(node for node in by_node if node != home)):
        ranks = by_node[node]
        if node != home:
            relay = ranks[turn % len(ranks)]
            children[head].append(relay)
            head = relay
        children[head] += [rank for rank in ranks if rank != head]
    return {rank: tuple(ranks) for rank, ranks in children.items()}
