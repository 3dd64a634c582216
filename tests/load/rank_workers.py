"""Real ranks for tests: processes in a gloo group that carry out what the test says, one call after another.

They are forked from a server that has imported torch, so that a new workers costs little.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

CABLE = "flcable"
"""What the network device is called that leads from one namespace to another."""
_LONGEST_S = 60.0
_CLONE_NEWNET, _CLONE_NEWUTS = 0x40000000, 0x04000000
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch.distributed", "torch.distributed.tensor", "fastload._load.engine"])


@dataclass
class Outcome:
    """What a call came to on one rank."""

    value: Any
    error: BaseException | None
    seconds: float
    """Without those in which the machine let nobody run."""


class Workers:
    """So many ranks."""

    def __init__(
        self, size: int, node_of: Callable[[int], str | None] = lambda _: None, host: str = "127.0.0.1"
    ) -> None:
        """``node_of``: the network namespace that a rank lives in; ``host``: where rank 0 is found from all of them."""
        self.size = size
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = _context.Pipe()
            process = _context.Process(target=_serve, args=(rank, size, theirs, node_of(rank), host), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        port = self._pipes[0].recv()
        for pipe in self._pipes[1:]:
            pipe.send(port)

    def begin(self, work: Callable[..., Any], *args: Any) -> None:
        """Every rank that lives begins ``work(rank, *args)``, a function of a module."""
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            if process.is_alive():
                with suppress(BrokenPipeError):  # its end closes before it counts as dead
                    pipe.send((work, args))

    def outcome(self, rank: int, within_s: float = _LONGEST_S) -> Outcome:
        """What it came to on ``rank``, within so many seconds in which the machine let somebody run."""
        with Stopwatch() as watch:
            while not (has_come := self._pipes[rank].poll(0.1)) and watch.seconds < within_s:
                pass
        if not has_come:
            for other in range(self.size):
                if self.processes[other].is_alive():
                    with suppress(ProcessLookupError):  # see close
                        self.send_signal(other, signal.SIGUSR1)  # to see on stderr where each of them is
            time.sleep(1.0)
            pytest.fail(f"rank {rank} did not answer within {within_s} s")
        outcome: Outcome = self._pipes[rank].recv()
        return outcome

    def call(self, work: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``work(rank, *args)`` returns on each rank; raises the first error."""
        self.begin(work, *args)
        outcomes = [self.outcome(rank) for rank in range(self.size)]
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return [outcome.value for outcome in outcomes]

    def try_call(self, work: Callable[..., Any], *args: Any) -> list[BaseException | None]:
        """The error of each rank."""
        self.begin(work, *args)
        return [self.outcome(rank).error for rank in range(self.size)]

    def send_signal(self, rank: int, number: signal.Signals) -> None:
        """To one rank's process."""
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def close(self) -> None:
        """End them all, stopped ones too."""
        for process in self.processes:
            process.kill()  # an end is told by the server a moment after it: who is_alive() may have ended
            process.join(_LONGEST_S)


@contextmanager
def workers_of(
    size: int, node_of: Callable[[int], str | None] = lambda _: None, host: str = "127.0.0.1"
) -> Iterator[Workers]:
    """Ranks for one test, or for many; see :class:`Workers`."""
    workers = Workers(size, node_of, host)
    try:
        yield workers
    finally:
        workers.close()


def _move_to(namespace: str) -> None:
    """This process to another network, under another machine's name."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) or libc.unshare(_CLONE_NEWUTS):
            raise OSError(ctypes.get_errno(), "setns, unshare")
    finally:
        os.close(descriptor)
    socket.sethostname(namespace)
    os.environ["GLOO_SOCKET_IFNAME"] = CABLE  # gloo looks up its own name otherwise, which leads nowhere here


def _serve(rank: int, size: int, pipe: Connection, namespace: str | None, host: str) -> None:
    faulthandler.register(signal.SIGUSR1)
    if namespace is not None:
        _move_to(namespace)
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore

    if rank == 0:
        store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False)
        pipe.send(store.port)
    else:
        store = TCPStore(host, pipe.recv(), size, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=30))
    while True:
        try:
            work, args = pipe.recv()
        except EOFError:
            return
        value, failure = None, None
        with Stopwatch() as watch:
            try:
                value = work(rank, *args)
            except BaseException as error:  # noqa: BLE001 - it travels to the test
                failure = error
        pipe.send(Outcome(value, failure, watch.seconds))
