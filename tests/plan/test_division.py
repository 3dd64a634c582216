"""Who reads what, and by which way it comes to the others."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastload._plan.division import Member, choose_pools, find_sources, grow_tree, own_by_files, own_by_stripes
from fastload._plan.extent import Extent, build_extents
from fastload._plan.ranges import clip, count, pick, unite
from fastload._plan.share import Division, share_of
from fastload._verify.digest import BLOCK_BYTES

EXTENT = 2 * BLOCK_BYTES
sizes = st.lists(st.integers(1, 20 * BLOCK_BYTES), min_size=1, max_size=6)


def ranges_below(limit: int) -> st.SearchStrategy[tuple[int, int]]:
    """``[begin, end)``, which may be empty."""
    return st.tuples(st.integers(0, limit), st.integers(0, limit)).map(lambda pair: (min(pair), max(pair)))


spreads = st.lists(ranges_below(1000), max_size=8)


def extents_of(files: list[int]) -> list[Extent]:
    return [
        extent
        for shard, size in enumerate(files)
        for extent in build_extents(shard, [(0, size)], file_bytes=size, extent_bytes=EXTENT)
    ]


def members(*nodes: int, reading: set[int] | None = None) -> list[Member]:
    """So many ranks on each node; all nodes, or only those of ``reading``, have the model."""
    ranks = [node for node, count in enumerate(nodes) for _ in range(count)]
    return [Member(rank, node, reads=reading is None or node in reading) for rank, node in enumerate(ranks)]


@given(spreads, spreads)
def test_ranges_are_sets_of_bytes(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    united = unite([*some, *others])
    assert {byte for begin, end in united for byte in range(begin, end)} == {
        byte for begin, end in [*some, *others] for byte in range(begin, end)
    }
    assert all(before[1] < after[0] for before, after in pairwise(united))
    assert count(clip(united, 100, 900)) == len(
        {byte for begin, end in united for byte in range(begin, end)} & set(range(100, 900))
    )


@given(spreads, spreads)
def test_what_is_picked_is_counted_over_all_ranges(some: list[tuple[int, int]], at: list[tuple[int, int]]) -> None:
    every = [byte for begin, end in unite(some) for byte in range(begin, end)]
    picked = [byte for begin, end in unite(at) for byte in every[begin:end]]
    assert [byte for begin, end in pick(unite(some), at) for byte in range(begin, end)] == picked


@given(sizes, st.integers(1, 5), st.integers(1, 8 * BLOCK_BYTES))
def test_stripes_are_balanced_and_go_forward(files: list[int], ranks: int, stripe_bytes: int) -> None:
    """No reader has more than a stripe above another."""
    extents = extents_of(files)
    owners = own_by_stripes(extents, range(ranks), stripe_bytes=stripe_bytes)
    loads = [sum(e.length for e, owner in zip(extents, owners, strict=True) if owner == rank) for rank in range(ranks)]
    assert sum(loads) == sum(extent.length for extent in extents)
    assert max(loads) - min(loads) <= max(stripe_bytes, EXTENT)


@given(sizes, st.integers(1, 5))
def test_files_stay_whole_and_are_balanced(files: list[int], ranks: int) -> None:
    extents = extents_of(files)
    owners = own_by_files(extents, range(ranks))
    owner_of = {extent.shard: owner for extent, owner in zip(extents, owners, strict=True)}
    assert owners == tuple(owner_of[extent.shard] for extent in extents)
    loads = [sum(size for shard, size in enumerate(files) if owner_of[shard] == rank) for rank in range(ranks)]
    assert max(loads) - min(loads) <= max(files)


def test_each_node_with_the_model_reads_for_itself() -> None:
    pools = choose_pools(members(2, 2))
    assert [[member.rank for member in pool] for pool in pools] == [[0, 1], [2, 3]]


def test_nodes_without_the_model_are_supplied_by_those_with_it() -> None:
    pools = choose_pools(members(1, 2, 1, 1, reading={0, 2}))
    assert [[member.rank for member in pool] for pool in pools] == [[0, 1, 2], [3, 4]]


def test_there_is_no_pool_where_nobody_has_the_model() -> None:
    assert choose_pools(members(2, 2, reading=set())) == ()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_a_tree_reaches_each_rank_once_and_each_node_once(nodes: list[int], data: st.DataObject) -> None:
    pool = members(*nodes, reading={0})
    owner = data.draw(st.integers(0, nodes[0] - 1))
    tree = grow_tree(pool, owner)
    reached = [child for children in tree.values() for child in children]
    assert sorted([owner, *reached]) == [member.rank for member in pool]
    node_of = {member.rank: member.node for member in pool}
    crossings = [node_of[c] for rank, cs in tree.items() for c in cs if node_of[c] != node_of[rank]]
    assert sorted(crossings) == list(range(1, len(nodes)))


@given(sizes, st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
def test_what_is_sent_arrives_and_everybody_gets_what_he_keeps(
    files: list[int], nodes: list[int], data: st.DataObject
) -> None:
    """Walks all trees: what a rank wants of an extent that it does not own comes by exactly one parcel."""
    pool = members(*nodes, reading={0})
    extents = tuple(extents_of(files))
    owners = own_by_stripes(extents, range(nodes[0]), stripe_bytes=EXTENT)
    wants = {
        member.rank: tuple(unite(data.draw(st.lists(ranges_below(size), max_size=3))) for size in files)
        for member in pool
    }
    division = Division(extents, owners, {owner: grow_tree(pool, owner) for owner in range(nodes[0])}, wants)
    shares = {member.rank: share_of(division, member.rank) for member in pool}
    sent = {
        (rank, parcel.rank, number): parcel.ranges
        for rank, share in shares.items()
        for number, parcels in share.parcels.items()
        for parcel in parcels
    }
    arrived = {
        (source, rank, number): ranges
        for rank, share in shares.items()
        for source, numbers in share.arrivals.items()
        for number, ranges in numbers.items()
    }
    assert sent == arrived
    for share in shares.values():
        has = {number for numbers in share.arrivals.values() for number in numbers} | set(share.own)
        assert share.kept <= has
        assert set(share.parcels) <= has
    assert all(share.arrivals.keys() <= find_sources(pool, rank) for rank, share in shares.items())


def test_of_many_nodes_few_ranks_send_to_one() -> None:
    """Its own machine's, and where that reads nothing, as many more as the one before it has in turn."""
    pool = members(8, 8, 8, reading={0})
    assert find_sources(pool, 3) == {*range(8)} - {3}
    assert find_sources(pool, 11) == {*range(8, 16)} - {11} | {3}
    assert find_sources(pool, 19) == {*range(16, 24)} - {19} | {11}


def test_the_first_tensors_are_read_by_all_at_once() -> None:
    """A stream hands tensors out in file order: were the files cut in as many parts as ranks, one would read alone."""
    extents = extents_of([64 * BLOCK_BYTES])
    owners = own_by_stripes(extents, range(4), stripe_bytes=EXTENT)
    assert owners[:4] == (0, 1, 2, 3)


def test_nothing_is_divided_into_nothing() -> None:
    assert own_by_stripes([], [0, 1], stripe_bytes=EXTENT) == ()


def test_what_a_rank_sends_is_listed_by_rank() -> None:
    extents = tuple(extents_of([4 * BLOCK_BYTES]))
    pool = members(3)
    everything = {member.rank: (((0, 4 * BLOCK_BYTES),),) for member in pool}
    division = Division(extents, (0, 0), {0: grow_tree(pool, 0)}, everything)
    assert share_of(division, 0).departures == {1: (0, 1), 2: (0, 1)}


def test_what_begins_behind_is_clipped_away() -> None:
    assert clip(((0, 4), (6, 9), (20, 30)), 2, 10) == ((2, 4), (6, 9))
    assert clip(((0, 4), (20, 30)), 5, 10) == ()
