"""A stream that must be proven, where only digests of whole files are known: these are proven before it begins.

Such a digest is there at a file's end, and by then a stream has handed out the file's tensors. So each file is read
once for its digest and for those of its blocks, and the stream goes by the blocks, should the file change in between.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import Busy
from fastload._fetch.evidence.record import digest_file
from fastload._fetch.workers import Workers
from fastload._load.prove.proving import index_of
from fastload._read.head import count_head_bytes, read_header
from fastload._read.ledger import Purpose
from fastload._read.whole_proof import check_header

if TYPE_CHECKING:
    from fastload._fetch.deadline import Deadline
    from fastload._format.checkpoint import Shard
    from fastload._load.prepare.found import Found
    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import ManifestFile

_FILES_AT_ONCE = 4


def prove_first(found: Found, deadline: Deadline) -> Found:
    """``found``, with block digests of every file that is wanted whole.

    Raises:
        IntegrityError: one is not what is known of it; or it is on no mount, and would come over the network twice.
        FormatError, StoreError: one cannot be read.
        DeadlineError: ``deadline`` is over.
    """
    fetched = found.fetched
    serial = _list_serial(found)
    is_known = all(fetched.evidence.find(path) is not None for path in index_of(fetched.checkpoint))
    if not serial or not found.group.may_want_all(found) or not is_known:
        return found  # of a part, or by such an index, it is said elsewhere that it cannot be proven
    fetched.home.check_read_twice(serial[0][0].path, fetched.name)
    busy = Busy()
    workers = Workers(_FILES_AT_ONCE, deadline.check)

    def take_turn(nbytes: int) -> None:
        workers.go_on()
        fetched.tally.note(Purpose.PROOF, nbytes)

    def digest(each: tuple[Shard, OfferedFile]) -> ManifestFile:
        return digest_file(each[0].path, each[1], take_turn, partial(busy.measure, "hash"))

    made = {file.path: file for file in deadline.within(lambda: workers.map_all(digest, serial))}
    fetched.tally.ahead_hash_s += busy.seconds["hash"]
    fetched.home.record(made)
    files = {**fetched.evidence.files}
    files |= {path: replace(files[path], blocks=file.blocks) for path, file in made.items()}
    proven = replace(fetched, evidence=replace(fetched.evidence, files=files))
    prove = proven.evidence.prover(proven.tally)
    for shard, _ in serial:  # it was parsed before anything was proven
        header, _ = deadline.within(partial(read_header, shard.path, prove))
        fetched.tally.note(Purpose.HEADERS, count_head_bytes(header, is_proven=True))
        check_header(shard.path, shard.header, header.digest)
    return replace(found, fetched=proven)


def _list_serial(found: Found) -> list[tuple[Shard, OfferedFile]]:
    evidence = found.fetched.evidence
    known = [(shard, evidence.find(shard.path)) for shard in found.fetched.checkpoint.shards]
    return [(shard, replace(file, size=shard.identity.size)) for shard, file in known if file and file.blocks is None]
