"""Starting threads, and what it means where the system grants none: a limit of processes, or no memory for a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    import threading

_HINT = "Raise its limit: ulimit -u, or pids.max of the cgroup (a container's pids limit)"


def start_thread(thread: threading.Thread) -> None:
    """Start it.

    Raises:
        UnsupportedError: the system refuses.
    """
    try:
        thread.start()
    except RuntimeError as exc:
        raise UnsupportedError("the system lets this process start no thread", _HINT) from exc
