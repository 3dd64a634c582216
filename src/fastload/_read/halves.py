"""Two threads for one extent: the second half of each read by a helper of the thread that wants it.

A device wants large copies, and each copy costs Python and the GIL about as much as one of any size; memory wants many
threads, of which one copies 3 GB/s. So eight lanes of 16 MiB are read by sixteen threads.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fastload._thread import start_thread
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.choose import Choice
    from fastload._read.reader import File, Reader

_LEAST_BYTES = 4 << 20  # 4 MiB: less is done before another thread has woken up


class Helpers:
    """A helper for each thread that reads, from its first read on."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._made: list[_Helper] = []

    def own(self) -> _Helper | None:
        """The calling thread's; None where the system grants no thread."""
        try:
            helper: _Helper | None = self._own.helper
        except AttributeError:
            helper = self._own.helper = self._make()
        return helper

    def _make(self) -> _Helper | None:
        with self._lock:
            helper = _Helper(f"fastload-half-{len(self._made)}")
            try:
                start_thread(helper.thread)
            except UnsupportedError:
                return None
            self._made.append(helper)
        return helper

    def close(self) -> None:
        """End those that are idle at once; one that is stuck in a read ends after it, should that ever return."""
        with self._lock:
            helpers, self._made = self._made, []
        for helper in helpers:
            helper.end()


class _Helper:
    """A thread that does one thing at a time for one other."""

    def __init__(self, name: str) -> None:
        self._wanted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self.thread = threading.Thread(target=_help, args=(self._wanted, self._done), name=name, daemon=True)

    def begin(self, work: Callable[[], None]) -> None:
        """Let it do ``work``."""
        self._wanted.put(work)

    def wait(self) -> BaseException | None:
        """Until it is done; the error that it ended with."""
        return self._done.get()

    def end(self) -> None:
        """There is no more work."""
        self._wanted.put(None)


def _help(wanted: SimpleQueue[Callable[[], None] | None], done: SimpleQueue[BaseException | None]) -> None:
    while (work := wanted.get()) is not None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - it travels to the thread that waits for it
            error = exc
        del work  # and with it the memory that was read into
        done.put(error)
        del error


def halved(choice: Choice, helpers: Helpers) -> Choice:
    """``choice``, with half as many workers, each of which has a helper."""

    def open_halved(file: File) -> HalvingReader:
        return HalvingReader(choice.open(file), helpers)

    return replace(choice, open=open_halved, depth=-(-choice.depth // 2))


class HalvingReader:
    """A wrapper with the reader's own protocol; see :class:`~fastload._read.reader.Reader`."""

    def __init__(self, reader: Reader, helpers: Helpers) -> None:
        self._reader = reader
        self._helpers = helpers

    @property
    def name(self) -> str:
        """See :class:`~fastload._read.reader.Reader`."""
        return self._reader.name

    @property
    def alignment_bytes(self) -> int:
        """See :class:`~fastload._read.reader.Reader`."""
        return self._reader.alignment_bytes

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`. Returns, or raises, when nobody writes to ``buffers`` any more."""
        if len(buffers) != 1 or len(buffers[0]) < 2 * _LEAST_BYTES or (helper := self._helpers.own()) is None:
            self._reader.read_into(offset, buffers)
            return
        half = len(buffers[0]) // 2 // _LEAST_BYTES * _LEAST_BYTES
        helper.begin(partial(self._reader.read_into, offset + half, [buffers[0][half:]]))
        try:
            self._reader.read_into(offset, [buffers[0][:half]])
        finally:
            error = helper.wait()
        if error is not None:
            raise error

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.check_path()

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.close()
