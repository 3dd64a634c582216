"""The files of one stored snapshot in which blocks were wrong, while those that take their places are made.

A disk may have room for one copy after another and not for all at once; nor may a process have a file open for each.
A file for which there is no room yet is mended at the end: its blocks are asked for again, when the others are done.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.mend.mended_file import MendedFile
from fastload._fetch.mend.stored_file import in_its_folder, scratch_of
from fastload._store.directory import contained_target, containment_root
from fastload._store.stored import PlainFolder
from fastload.errors import DeadlineError, FastloadError, NoSpaceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastload._fetch.mend.mended_file import Rest
    from fastload._read.proof import WantedBlock
    from fastload._read.reader import File
    from fastload._store.stored import Stored

    Ask = Callable[[WantedBlock], memoryview | None]
    """The right bytes of a block, from a better source; None: none has them any more."""

_log = logging.getLogger("fastload")

_MOST_OPEN = 64
"""Of the files that a process may have open, as a rule 1,024, what a load leaves to others is more."""


class MendedFiles:
    """Takes right blocks from any thread; nothing is made before there is one."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._lock = threading.Lock()  # also while a block is written, so that nobody closes the file meanwhile
        self._process = os.getpid()
        self._came: dict[str, dict[int, WantedBlock]] = {}
        self._files: dict[str, MendedFile] = {}
        self._failed: dict[str, FastloadError] = {}
        """Also those for which there was no room yet."""
        self._is_closed = False

    def put(self, wanted: WantedBlock, block: memoryview) -> None:
        """Take the right bytes of a block. Of a file that cannot be written :meth:`publish` tells why."""
        path = wanted.file.path
        with self._here():
            if self._is_closed:
                return
            self._came.setdefault(path, {})[wanted.index] = wanted
            if path not in self._failed:
                self._try(path, partial(self._put, wanted, block))

    def has(self, wanted: WantedBlock) -> bool:
        """True if it came, whether it could be written or not: of that, :meth:`publish` tells."""
        with self._here():
            return wanted.index in self._came.get(wanted.file.path, {})

    def find(self, wanted: WantedBlock) -> memoryview | None:
        """What came for a block before, if it is kept."""
        with self._here():
            file = self._files.get(wanted.file.path)
            return file.find(wanted.index) if file is not None else None

    def publish(self, rest: Rest, ask: Ask) -> list[tuple[File, FastloadError]]:
        """Let each file take its place, with the ``rest`` of what is there; for which there was no room, at the end.

        Returns:
            Those that stay as they are, and why.

        Raises:
            DeadlineError: ``rest`` or ``ask`` says that it is time to give up.
        """
        with self._here():
            for path in tuple(self._files):
                self._try(path, partial(self._publish, path, rest))
            for path in [path for path, error in self._failed.items() if _may_pass(error)]:
                del self._failed[path]
                self._try(path, partial(self._begin_anew, path, rest, ask))
            failed = [(_file_of(self._came[path]), error) for path, error in self._failed.items()]
            self._forget()
        return failed

    def close(self) -> tuple[File, ...]:
        """Let go of what was not published; these files are damaged still."""
        with self._here():
            self._is_closed = True
            left = tuple(map(_file_of, self._came.values()))
            self._forget()
        return left

    @contextmanager
    def _here(self) -> Iterator[None]:
        """One thread at a time. What was made before a fork is the parent's, as is a lock that was held then."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()
            self._came, self._files, self._failed = {}, {}, {}
        with self._lock:
            yield

    def _try(self, path: str, act: Callable[[], None]) -> None:
        try:
            act()
        except DeadlineError:  # no reason of this file: none is gone on with, and whoever closes them lets go of all
            raise
        except FastloadError as exc:
            self._failed[path] = exc
            self._discard(path)

    def _put(self, wanted: WantedBlock, block: memoryview) -> None:
        path = wanted.file.path
        if path not in self._files:
            if len(self._files) == _MOST_OPEN:
                raise NoSpaceError(path, f"{_MOST_OPEN} others are being mended", "It is mended after these")
            self._files[path] = self._begin(wanted)
        self._files[path].put(wanted.index, block)

    def _begin(self, wanted: WantedBlock) -> MendedFile:
        path = wanted.file.path
        root, is_plain = containment_root(self._stored.folder), isinstance(self._stored, PlainFolder)
        # In a plain folder a link to a neighbour is replaced, and not what it leads to.
        place = in_its_folder(path, root) if is_plain else contained_target(path, root)
        return MendedFile(place, wanted, scratch_of(self._stored), may_differ=not is_plain)

    def _publish(self, path: str, rest: Rest) -> None:
        self._files[path].publish(rest)
        del self._files[path], self._came[path]

    def _begin_anew(self, path: str, rest: Rest, ask: Ask) -> None:
        for wanted in self._came[path].values():
            block = ask(wanted)
            if block is None:
                reason = f"there was no room for it before, and nobody has block {wanted.index} right by now"
                raise StoreError(path, reason, "Make room, then verify it again")
            self._put(wanted, block)
        self._publish(path, rest)

    def _discard(self, path: str) -> None:
        file = self._files.pop(path, None)
        try:
            if file is not None:
                file.discard()
        except StoreError as exc:  # no reason to end a load
            _log.info("what was made to mend %s is left: %s", path, exc)

    def _forget(self) -> None:
        for path in tuple(self._files):
            self._discard(path)
        self._came.clear()
        self._failed.clear()


def _may_pass(error: FastloadError) -> bool:
    """True if it may be otherwise when the other files are done: no room, or no descriptor."""
    cause = error.__cause__
    no_descriptor = isinstance(cause, OSError) and cause.errno in {errno.EMFILE, errno.ENFILE}
    return isinstance(error, NoSpaceError) or no_descriptor


def _file_of(came: Mapping[int, WantedBlock]) -> File:
    return next(iter(came.values())).file
