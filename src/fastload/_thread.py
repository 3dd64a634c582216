"""Starting threads, and what it means where the system grants none: a limit of processes, or no memory for a stack."""

from __future__ import annotations

import resource
import threading

from fastload._address_space import map_private
from fastload.errors import UnsupportedError

_HINT = "Raise its limit: ulimit -u, or pids.max of the cgroup (a container's pids limit)"
_UNLIMITED_STACK_BYTES = 2 << 20  # glibc's ARCH_STACK_DEFAULT_SIZE, where RLIMIT_STACK says none
_GUARD_BYTES = 64 << 10  # the largest page there is


def start_thread(thread: threading.Thread) -> None:
    """Start it.

    Raises:
        MemoryBudgetError: there is no address space for its stack.
        UnsupportedError: the system refuses for another reason, which is a limit of processes.
    """
    try:
        thread.start()
    except RuntimeError as exc:
        # pthread_create(3) says EAGAIN for both. Asking for what a stack takes tells them apart.
        map_private(_stack_bytes() + _GUARD_BYTES).close()
        raise UnsupportedError("the system lets this process start no thread", _HINT) from exc


def _stack_bytes() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.stack_size() or (_UNLIMITED_STACK_BYTES if limit == resource.RLIM_INFINITY else limit)
