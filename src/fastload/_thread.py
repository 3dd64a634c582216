"""Starting threads, and what it means where the system grants none: a limit of processes, or no memory for a stack.

And waiting for them: a signal that comes right before the main thread begins to wait does not end that.
"""

from __future__ import annotations

import resource
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from fastload._address_space import address_space_refusal, map_private
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

Result = TypeVar("Result")

_HINT = "Raise its limit: ulimit -u, or pids.max of the cgroup (a container's pids limit)"
_UNLIMITED_STACK_BYTES = 2 << 20  # glibc's ARCH_STACK_DEFAULT_SIZE, where RLIMIT_STACK says none
_GUARD_BYTES = 64 << 10  # the largest page there is
_FIRST_BYTES = 32 << 10  # what Python and the C library map before a thread's first instruction
LOOK_S = 0.1
"""How long to wait at once, where it may be the main thread that waits: a Ctrl-C is noticed between two waits."""


def start_thread(thread: threading.Thread) -> None:
    """Start it.

    Raises:
        MemoryBudgetError: there is no address space for its stack, or for its first instruction.
        UnsupportedError: the system refuses for another reason, which is a limit of processes.
    """
    own: dict[str, Any] = vars(thread)
    if hasattr(thread, "_bootstrap") and "_started" in own:  # else a Python that goes about it in another way
        own |= {"_bootstrap": getattr(thread, "_bootstrap"), "_started": _Birth(own)}  # noqa: B009 - types know none
    try:
        thread.start()
    except RuntimeError as exc:
        # pthread_create(3) says EAGAIN for both. Asking for what a stack takes tells them apart.
        map_private(_stack_bytes() + _GUARD_BYTES).close()
        raise UnsupportedError("the system lets this process start no thread", _HINT) from exc
    except _StillbornError as exc:
        getattr(threading, "_limbo", {}).pop(thread, None)  # else it is held for ever, with all it knows
        raise address_space_refusal(_FIRST_BYTES) from exc
    finally:
        own.pop("_bootstrap", None)


def join_all(threads: Iterable[threading.Thread], within_s: float) -> None:
    """Wait for those that have begun; one that hangs is left behind."""
    until_s = time.monotonic() + within_s
    for thread in threads:
        if thread.is_alive():  # not so where Ctrl-C came before it was started: joining it would be an error
            thread.join(max(0.0, until_s - time.monotonic()))


def settle(outcome: Future[Result], work: Callable[[], Result]) -> None:
    """Do ``work``, and let ``outcome`` be what it returned or raised."""
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it, whatever it is
        outcome.set_exception(error)


class _StillbornError(Exception):
    """A thread died before it began."""


class _Birth(threading.Event):
    """What ``Thread.start`` waits for: the thread's own word that it runs.

    Python's waits for ever for a thread that found no memory to begin with. The system's side of a thread holds the
    method that it calls until it has ended: where nobody holds it any more and no word has come, none will. The names
    are Python's own, the same from 3.3 to 3.15: ``start`` puts the thread into ``_limbo``, has ``_bootstrap`` called
    and waits for ``_started``.
    """

    def __init__(self, own: dict[str, Any]) -> None:
        """``own`` are the thread's attributes, of which ``_bootstrap`` is the method."""
        super().__init__()
        self._own = own

    def wait(self, timeout: float | None = None) -> bool:
        """Until the thread runs.

        Raises:
            _StillbornError: it never will.
        """
        entry = weakref.ref(self._own.pop("_bootstrap"))
        while not super().wait(LOOK_S):
            if entry() is None and not self.is_set():
                raise _StillbornError
        return True


def _stack_bytes() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.stack_size() or (_UNLIMITED_STACK_BYTES if limit == resource.RLIM_INFINITY else limit)
