"""A checkpoint in a folder: its files chosen, and their headers read and proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.damage import check_named, find_damage
from fastload._fetch.fetched import Fetched, Source
from fastload._format.checkpoint import Shard, build_checkpoint, layer
from fastload._read.file import count_head_bytes, read_ahead, read_header
from fastload._store.directory import find_files
from fastload.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._fetch.evidence import Evidence
    from fastload._read.file import ProveBlock
    from fastload._read.tally import ProofTally

_AHEAD = 16


def fetch_folder(
    source: Source, path: str, tier: str, evidence: Evidence, tally: ProofTally, go_on: Callable[[], None]
) -> Fetched:
    """The checkpoint in the folder ``path`` of ``tier``; ``go_on`` raises when it is time to give up.

    Raises:
        IntegrityError: a file is not what ``evidence`` says.
        FormatError: it is no checkpoint.
    """
    prove = evidence.prover(tally) if evidence.has_some_blocks else None
    try:
        files = find_files(path, subfolder=source.subfolder, select=source.choose, prove=evidence.whole_prover(tally))
        if files.is_chosen and source.variant is not None:
            raise UsageError(f"{path!r} is a file: it has no variant", "Give the folder instead")
        shards = list(_read_shards(files.shards, prove, go_on))
        tally.count_ahead(sum(count_head_bytes(shard.header, is_proven=prove is not None) for shard in shards))
        check_named(evidence, files, source.choose)
        checkpoint = build_checkpoint(shards, layer(shards, files.index) if files.is_layered else files.index)
    except FormatError as exc:
        damage = find_damage(evidence, exc)
        if damage is not None:
            raise damage from exc
        raise
    return Fetched(
        checkpoint=checkpoint,
        name=source.name,
        folder=files.folder,
        root=path,
        tier=tier,
        evidence=evidence,
        tally=tally,
    )


def _read_shards(
    shards: Sequence[tuple[str, str]], prove: ProveBlock | None, go_on: Callable[[], None]
) -> Iterator[Shard]:
    """By name and path. A header that is proven is read with the block around it, of several shards at once."""
    for number, (name, path) in enumerate(shards):
        go_on()
        if prove is not None and number % _AHEAD == 0:
            for _, ahead in shards[number : number + _AHEAD]:
                read_ahead(ahead)
        yield Shard(name, path, *read_header(path, prove))
