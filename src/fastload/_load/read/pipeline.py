"""The threads of one load: they are started, awaited, and stopped.

What each does is its worker's (:mod:`~fastload._load.read.workers`). Reads and copies release the GIL, so threads are
the depth that storage sees. The rest is in order (:mod:`~fastload._load.read.schedule`), open
(:mod:`~fastload._load.read.sources`) and memory (:mod:`fastload._place`).
"""

from __future__ import annotations

import threading
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastload._thread import join_all, start_thread
from fastload.errors import MemoryBudgetError, UnsupportedError

if TYPE_CHECKING:
    from fastload._fetch.deadline import Deadline
    from fastload._load.read.workers import Ways, Workers
    from fastload._load.read.workplace import Worker, Workplace

_JOIN_S = 0.8
"""How long closing waits for reads under way: Ctrl-C promises a second, and a dead mount may hold one for ever."""


class Pipeline:
    """The workers of one load, at work."""

    def __init__(self, at: Workplace, workers: Workers, ways: Ways) -> None:
        self._sources = at.sources
        self._schedule = at.schedule
        self._workers = workers
        self._ways = ways
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to read, by fewer threads where the system does not grant so many.

        Raises:
            UnsupportedError, MemoryBudgetError: it does not grant those that are needed.
        """
        if self._ways.device_reads is not None:
            self._ways.device_reads.begin()
        for worker in self._workers.needed:
            self._start(worker)
        for worker in self._workers.more:
            try:
                self._start(worker)
            except UnsupportedError:
                return

    def _start(self, worker: Worker) -> None:
        name = f"fastload-{len(self._threads)}"
        # Daemons, because a read that hangs in the kernel must not keep the interpreter from ending.
        thread = threading.Thread(target=self.run, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        try:
            start_thread(thread)
        except (UnsupportedError, MemoryBudgetError):
            self._threads.pop()  # it holds all that it would have worked at
            raise

    def run(self, worker: Worker) -> None:
        """What a thread does; an error of its ``worker`` ends the load, for all ranks of a group."""
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        traceback.clear_frames(error.__traceback__)  # a frame holds it, and both hold all memory
        is_first = not self._schedule.is_stopped()
        self._schedule.fail(error)  # first, since telling the others ends what other threads are waiting for
        if self._ways.exchange is not None and is_first:
            self._ways.exchange.fail(error)

    def is_worker(self) -> bool:
        """True on one of the threads that read."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Stop the workers, wait for what they are doing, close the readers.

        A worker stuck in a read is left behind: it owns what it reads into, and cleans up after itself should the
        read ever return.
        """
        with ExitStack() as undo:  # Ctrl-C ends the waiting, and nothing else
            if self._ways.device_reads is not None:
                undo.callback(self._ways.device_reads.close)
            undo.callback(self._sources.close)
            undo.callback(self._schedule.forget_error)
            self._schedule.stop()
            join_all(self._threads, _JOIN_S)

    def join(self, deadline: Deadline) -> None:
        """Wait until the workers have ended by themselves, as they do when all is placed; raise the first error."""
        for thread in self._threads:
            thread.join(deadline.next_look_s)
            while thread.is_alive():
                deadline.check()
                thread.join(deadline.next_look_s)
        self._schedule.check()

    def leave(self) -> None:
        """Take nothing more, but go on reading and sending what other ranks wait for; they are to be told."""
        if self._ways.exchange is not None:
            self._schedule.leave()
            self._ways.exchange.leave()
