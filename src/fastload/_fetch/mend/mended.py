"""The files of one stored snapshot in which blocks were wrong, while those that take their places are made."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from fastload._fetch.mend.mended_file import MendedFile
from fastload._fetch.mend.stored_file import in_its_folder, scratch_of
from fastload._store.directory import contained_target, containment_root
from fastload._store.stored import PlainFolder
from fastload.errors import FastloadError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._read.proof import WantedBlock
    from fastload._read.reader import File
    from fastload._store.stored import Stored

_log = logging.getLogger("fastload")


class Mended:
    """Takes right blocks from any thread; nothing is made before there is one."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._lock = threading.Lock()  # also while a block is written: a descriptor may be closed by nobody meanwhile
        self._damaged: dict[str, File] = {}
        self._files: dict[str, MendedFile] = {}
        self._failed: dict[str, FastloadError] = {}
        self._is_closed = False

    def put(self, wanted: WantedBlock, block: bytes | memoryview) -> None:
        """Take the right bytes of a block. Of a file that cannot be written :meth:`publish` tells why."""
        path = wanted.file.path
        with self._lock:
            if self._is_closed or path in self._failed:
                return
            self._damaged.setdefault(path, wanted.file)
            try:
                if path not in self._files:
                    nbytes = wanted.file.identity.size
                    self._files[path] = MendedFile(self._find_place(path), nbytes, scratch_of(self._stored))
                self._files[path].put(wanted.index, block)
            except FastloadError as exc:
                self._failed[path] = exc

    def find(self, wanted: WantedBlock) -> memoryview | None:
        """What came for a block before, if it is kept."""
        with self._lock:
            file = self._files.get(wanted.file.path)
            return file.find(wanted.index) if file is not None else None

    def publish(self, count: Callable[[int], object]) -> list[tuple[File, FastloadError]]:
        """Let all that is made take its place; ``count`` is told what was read of what was there.

        Returns:
            Those that stay as they are, and why.
        """
        with self._lock:
            for path in self._damaged.keys() - self._failed.keys():
                try:
                    self._files[path].publish(count)
                    del self._files[path], self._damaged[path]
                except FastloadError as exc:
                    self._failed[path] = exc
            failed = [(self._damaged[path], error) for path, error in self._failed.items()]
            self._forget()
        return failed

    def close(self) -> tuple[File, ...]:
        """Let go of what was not published; these files are damaged still."""
        with self._lock:
            self._is_closed = True
            left = tuple(self._damaged.values())
            self._forget()
        return left

    def _forget(self) -> None:
        self._damaged.clear()
        self._failed.clear()
        while self._files:
            path, file = self._files.popitem()
            try:
                file.discard()
            except StoreError as exc:  # no reason to end a load: prune finds it
                _log.info("what was made to mend %s is left: %s", path, exc)

    def _find_place(self, path: str) -> str:
        """Where the file lies, whose name the mended one takes."""
        root = containment_root(self._stored.folder)
        if isinstance(self._stored, PlainFolder):  # a link to a neighbour is replaced, and not what it leads to
            return in_its_folder(path, root)
        return contained_target(path, root)
