"""A checkpoint in a folder: its files chosen, and their headers read and proven."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from fastload._cpus import count_cpus
from fastload._fetch.evidence.damage import check_named, find_damage
from fastload._fetch.workers import Workers
from fastload._format.checkpoint import Shard, build_checkpoint, layer
from fastload._read.head import HeadReader, count_head_bytes, read_ahead
from fastload._read.ledger import Purpose
from fastload._store.directory import find_files
from fastload.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from fastload._fetch.checkpoint.fetched import FetchRequest
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.checkpoint import Checkpoint
    from fastload._read.head import Head, ProveBlock
    from fastload._read.tally import ProofTally

Item = TypeVar("Item")

_AHEAD = 16
_MOST_THREADS = 8
"""A block each, they bring and digest as fast as memory gives it."""
_BUNCH = 64
"""Heads that are parsed one after another."""


def read_folder(request: FetchRequest, path: str, evidence: Evidence, tally: ProofTally) -> tuple[Checkpoint, str]:
    """The checkpoint in the folder ``path``, or below it; and where its files are.

    Raises:
        IntegrityError: a file is not what ``evidence`` says.
        FormatError: it is no checkpoint.
        DeadlineError: it is time to give up.
    """
    source = request.source
    prove = evidence.prover(tally) if evidence.has_some_blocks else None
    try:
        files = find_files(path, subfolder=source.subfolder, select=source.choose, prove=evidence.whole_prover(tally))
        if files.is_chosen and source.variant is not None:
            raise UsageError(f"{path!r} is a file: it has no variant", "Give the folder instead")
        shards: list[Shard] = []
        for shard, lost_bytes in _read_shards(files.shards, prove, request.check):
            tally.note(Purpose.HEADERS, count_head_bytes(shard.header, is_proven=prove is not None) - lost_bytes)
            shards.append(shard)
        check_named(evidence, files, source.choose)
        beside = files.list_beside()
        index = layer(shards, files.index, beside) if files.is_layered else files.index
        checkpoint = build_checkpoint(shards, index, beside)
    except FormatError as exc:
        damage = find_damage(evidence, exc)
        if damage is not None:
            raise damage from exc
        raise
    return checkpoint, files.folder


def _read_shards(
    shards: Sequence[tuple[str, str]], prove: ProveBlock | None, go_on: Callable[[], None]
) -> Iterator[tuple[Shard, int]]:
    """By name and path; with how much of what its header needed could not be read."""
    paths = [path for _, path in shards]
    with closing(_read_heads(paths, go_on) if prove is None else _prove_heads(paths, prove, go_on)) as heads:
        for (name, path), head in zip(shards, heads, strict=True):
            yield Shard(name, path, head.parse(), head.identity), head.lost_bytes


def _read_heads(paths: Sequence[str], go_on: Callable[[], None]) -> Generator[Head]:
    """One after another: threads would take longer to begin."""
    reader = HeadReader()
    for path in paths:
        go_on()
        yield reader.read(path)


def _prove_heads(paths: Sequence[str], prove: ProveBlock, go_on: Callable[[], None]) -> Generator[Head]:
    """Each is read with the block around it, which takes a few milliseconds: several at once.

    They are parsed one after another: that takes memory, and only one thread can do it at a time. Not as they come, but
    in bunches: whoever parses keeps the GIL for milliseconds, for which all others would wait after each read. What is
    long enough to need much memory is not read before its turn.
    """
    reader, workers = HeadReader(prove), Workers(min(count_cpus().usable, _MOST_THREADS), go_on)

    def read(number: int) -> Head | None:
        workers.go_on()
        if number % _AHEAD == 0:
            for path in paths[number : number + _AHEAD]:
                read_ahead(path)
        return reader.read_short(paths[number])

    with closing(workers.each(read, range(len(paths)))) as heads:
        for bunch in _in_bunches(zip(paths, heads, strict=True)):
            for path, head in bunch:
                yield head or reader.read(path)


def _in_bunches(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Lists of several; where an error ends ``items``, what came before it is handed out before it is raised."""
    while True:
        bunch: list[Item] = []
        try:
            bunch.extend(islice(items, _BUNCH))
        except Exception:
            yield bunch
            raise
        if not bunch:
            return
        yield bunch
