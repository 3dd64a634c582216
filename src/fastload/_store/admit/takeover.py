"""Where a file is staged: to what somebody else has left of it, or anew.

A staging inode has one writer ever. Whoever finds a file of somebody else's takes it over only where its writer is
provably dead: the same boot of the same machine, and a lock that is free where locks tell the truth. Else the blocks
are copied to an inode of one's own, and a writer that comes back from the dead writes where nobody looks.

Nor is it taken over where it may be no file of ours at all: a link, a file that has another name, or another user's.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from fastload._store.admit.journal import Claims, dump_head, parse_journal
from fastload._store.admit.part import Part
from fastload._store.admit.staged import StagedFile
from fastload._store.filesystem import new_id, writing
from fastload._store.lease.lock import flock_is_truthful, try_exclusive
from fastload._store.left import is_own, is_still_at, make_new, open_left
from fastload._verify.digest import block_digest

if TYPE_CHECKING:
    from fastload._store.admit.area import StagingArea
    from fastload._store.offer import OfferedFile
    from fastload._verify.difference import KnownFile


def content_key(file: OfferedFile, place: str) -> str:
    """Under what ``file`` is staged: its digest, or where nobody knows one, where it lies and the state it is in."""
    state = json.dumps([place, file.path, file.size, file.mtime_ns, file.ctime_ns]).encode("utf-8")
    return file.sha256 or file.git_sha1 or f"plain-{block_digest(state)[:40]}"


def begin_staged(
    area: StagingArea, key: str, size: int, *, in_order: bool = False, known: KnownFile | None = None
) -> StagedFile:
    """As :func:`open_staged`, with nothing of what an earlier writer left: that has turned out wrong."""
    return _begin(area, f"{key}.{new_id()}", size, in_order=in_order, known=known)


def open_staged(
    area: StagingArea, key: str, size: int, *, in_order: bool = False, known: KnownFile | None = None
) -> StagedFile:
    """A staged file for the content ``key`` of ``size`` bytes, with whatever an earlier writer left of it.

    Args:
        area: where.
        key: see :func:`content_key`.
        size: in bytes.
        in_order: its blocks will come almost in their order, as from a folder. Then they are written past the page
            cache, and who brings one waits a moment for its turn in the digest of the whole. From a hub a block may be
            late by seconds: those behind it are read back from the page cache.
        known: with what its digests will be compared; see :class:`~fastload._verify.digest.ContentHash`.

    Raises:
        StoreError: it cannot be written.
    """
    for name in area.list_names(key):
        taken = _take_over(area, name, size, in_order=in_order, known=known)
        if taken is not None:
            return taken
    staged = begin_staged(area, key, size, in_order=in_order, known=known)
    for name in area.list_names(key):
        claims = _read_claims(area, name, size)
        if claims is not None:
            staged.inherit(claims)
            break
    return staged


def _begin(area: StagingArea, name: str, size: int, *, in_order: bool, known: KnownFile | None) -> StagedFile:
    head = dump_head(size, os.stat(area.journals).st_dev)
    with writing(area.journal(name)):
        journal = make_new(area.journal(name), os.O_APPEND)
        try:
            try_exclusive(journal)
            os.write(journal, head)
            with writing(area.part(name)):
                part = Part(make_new(area.part(name)), past_cache=in_order)
            return StagedFile(area, name, size, journal, part, known)
        except BaseException:
            os.close(journal)
            area.remove(name)
            raise


def _take_over(
    area: StagingArea, name: str, size: int, *, in_order: bool, known: KnownFile | None
) -> StagedFile | None:
    """The file ``name`` as our own, if its writer is provably dead."""
    journal = _open_own(area, area.journal(name), os.O_RDWR | os.O_APPEND)
    if journal is None:
        return None
    left = parse_journal(journal, size)
    is_dead = left.is_ours and flock_is_truthful(area.journal(name)) and try_exclusive(journal)
    is_there = is_dead and is_still_at(area.journal(name), journal)  # else it was published before the lock was ours
    part = _open_own(area, area.part(name), os.O_RDWR) if is_there else None
    if part is None:
        os.close(journal)
        return None
    staged = StagedFile(area, name, size, journal, Part(part, past_cache=in_order), known)
    staged.inherit(Claims(part, left.digests, left.is_proven))  # the same inode: what is there is not copied
    return staged


def _open_own(area: StagingArea, path: str, flags: int) -> int | None:
    """A descriptor of the file that was left at ``path``, if this user left it."""
    descriptor = open_left(path, flags)
    if descriptor is None or is_own(os.fstat(descriptor), area.parts):
        return descriptor
    os.close(descriptor)
    return None


def _read_claims(area: StagingArea, name: str, size: int) -> Claims | None:
    journal = open_left(area.journal(name), os.O_RDONLY)
    if journal is None:
        return None
    try:
        digests = parse_journal(journal, size).digests
    except OSError:
        return None
    finally:
        os.close(journal)
    part = open_left(area.part(name), os.O_RDONLY) if digests else None
    return None if part is None else Claims(part, digests)
