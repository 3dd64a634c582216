"""The headers of a checkpoint whose files are on no mount: read through the offer's readers, a few bytes of each."""

from __future__ import annotations

import logging
import posixpath
from typing import TYPE_CHECKING

from fastload._budget import check_json_room
from fastload._format.checkpoint import Checkpoint, Shard, build_checkpoint, layer
from fastload._format.header import LENGTH_BYTES, parse_header, parse_header_length
from fastload._format.index import MAX_INDEX_BYTES, parse_index
from fastload._format.select import ByIndex, Layered, LayeredByIndex, order_by_numbers
from fastload._read.ledger import Purpose
from fastload._store.offered import identity_of, read_proven, read_range
from fastload.errors import FormatError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._fetch.find.model import Source
    from fastload._format.header import Header
    from fastload._format.index import Index
    from fastload._read.file import ProveWhole
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile

_log = logging.getLogger("fastload")
_FIRST_READ_BYTES = 256 << 10  # 256 KiB: length and header of most shards in one request


def read_checkpoint(offer: Offer, source: Source, prove: ProveWhole, tally: ProofTally) -> Checkpoint:
    """What ``offer`` has of ``source``; reads headers and the index, which ``prove`` sees before it is believed.

    Raises:
        FormatError: there are no weights, or what there is is malformed.
        ModelNotFoundError: there is no such subfolder.
        HubError: the hub does not give it.
        IntegrityError: what ``prove`` raises.
        MemoryBudgetError: to parse them would take more memory than there is.
    """
    folder = source.subfolder.strip("/") if source.subfolder else ""
    there = {file.path: file for file in offer.files}
    names = {posixpath.basename(path) for path in there if posixpath.dirname(path) == folder}
    if source.subfolder and not names:
        raise ModelNotFoundError(
            f"{offer.repo}/{source.subfolder}", (str(offer.tier),), "Give a folder inside the model"
        )
    selection = source.choose(names, path=offer.repo)
    index = None
    if isinstance(selection, ByIndex):
        path = posixpath.join(folder, selection.name)
        raw = read_proven(offer, there[path], MAX_INDEX_BYTES, prove)
        check_json_room(len(raw), path)
        index = parse_index(raw, path=path)
    wanted: Sequence[str] = index.shards if index else selection.names if not isinstance(selection, ByIndex) else ()
    is_layered = isinstance(selection, Layered | LayeredByIndex)
    wanted = order_by_numbers(wanted) if is_layered else wanted
    offered = [(name, _offered(there, folder, name, index)) for name in wanted]
    shards = [_read_shard(offer, name, file, tally) for name, file in offered]
    return build_checkpoint(shards, layer(shards, index, names) if is_layered else index, names)


def _offered(there: Mapping[str, OfferedFile], folder: str, name: str, index: Index | None) -> OfferedFile:
    path = posixpath.join(folder, name)
    if index is not None and path not in there:
        hint = "The repository is incomplete: ask whoever made it, or take another revision"
        raise index.explain(FormatError(path, "no file", "a shard", hint=hint), name)
    return there[path]


def _read_shard(offer: Offer, name: str, file: OfferedFile, tally: ProofTally) -> Shard:
    try:
        header = _read_header(offer, file, tally)
    except FormatError as exc:
        # What cannot be parsed cannot be held to its digest either, which is of the whole file: it may have been sent
        # wrong once.
        _log.warning("%s: asked for once more: %s", file.path, exc)
        header = _read_header(offer, file, tally)
    return Shard(name, file.path, header, identity_of(file))


def _read_header(offer: Offer, file: OfferedFile, tally: ProofTally) -> Header:
    start = read_range(offer, file, 0, min(_FIRST_READ_BYTES, file.size))
    tally.note(Purpose.HEADERS, len(start))  # also what is behind it: nothing keeps that for the weights
    length = parse_header_length(start, path=file.path, file_bytes=file.size)
    check_json_room(length, file.path)
    raw = start[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(raw) < length:
        rest = read_range(offer, file, LENGTH_BYTES + len(raw), length - len(raw))
        tally.note(Purpose.HEADERS, len(rest))
        raw += rest
    return parse_header(raw, path=file.path, file_bytes=file.size)
