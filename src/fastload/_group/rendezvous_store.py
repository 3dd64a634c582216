"""Where rank 0 leaves word of how to reach it: the store of the caller's group, which may be gone or stopped.

A store's calls know no deadline of ours, and raise errors of their own. So each is made on a thread that is left behind
if it does not return in time.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from fastload._thread import settle, start_thread
from fastload.errors import FastloadError, GroupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._group.timeout import RendezvousTimeout

_KEY = "fastload/meeting"
_LEAST_S = 0.5
"""A store that lives may take as long, also where the rendezvous is about to end for another reason."""
_HINT = "See whether the process that serves it still runs (rank 0 mostly); without it, make a new process group"
_Result = TypeVar("_Result")


class Store(Protocol):
    """What is used of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def get(self, key: str) -> bytes:
        """Read what is there."""

    def check(self, keys: list[str]) -> bool:
        """True if all are there."""


class RootEndpoint(NamedTuple):
    """What rank 0 leaves there."""

    host: str
    port: int
    token: str
    """Keeps strangers out, and tells this rendezvous from an earlier one whose address is still there."""
    failed: tuple[str, str] | None = None
    """What has failed and a hint, where nobody can come: rank 0 may open no socket."""


class RendezvousStore:
    """The store, for one rendezvous."""

    def __init__(self, store: Store, timeout: RendezvousTimeout) -> None:
        """``timeout``: how long anybody waits for it."""
        self._store = store
        self._timeout = timeout

    def publish(self, root: RootEndpoint) -> None:
        """Write it, over that of an earlier rendezvous.

        Raises:
            GroupError: the store cannot be asked.
        """
        fields = root if root.failed is not None else root[:3]
        self._ask(lambda: self._store.set(_KEY, json.dumps(fields)))

    def find_root(self) -> RootEndpoint | None:
        """What rank 0 has left there; it may be of an earlier rendezvous.

        Raises:
            GroupError: the store cannot be asked.
        """
        left = self._ask(partial(self._read, _KEY))
        return None if left is None else RootEndpoint(*json.loads(left))

    def write(self, key: str, content: str) -> None:
        """Write something else than rank 0's endpoint.

        Raises:
            GroupError: the store cannot be asked.
        """
        self._ask(lambda: self._store.set(f"{_KEY}/{key}", content))

    def read(self, key: str) -> str | None:
        """What was written there; None: nothing.

        Raises:
            GroupError: the store cannot be asked.
        """
        return self._ask(partial(self._read, f"{_KEY}/{key}"))

    def _read(self, key: str) -> str | None:
        return self._store.get(key).decode() if self._store.check([key]) else None

    def _ask(self, work: Callable[[], _Result]) -> _Result:
        answer: Future[_Result] = Future()
        self._begin(partial(settle, answer, work))
        while not wait_futures([answer], timeout=_LEAST_S).done:  # in steps: the time may become less meanwhile
            if self._timeout.left_s <= 0:
                raise GroupError("the store of the process group did not answer in time", _HINT)
        try:
            return answer.result()
        except RuntimeError as exc:  # what torch's stores raise
            said = str(exc).partition("\n")[0]
            raise GroupError(f"the store of the process group cannot be asked ({said})", _HINT) from exc

    def _begin(self, work: Callable[[], None]) -> None:
        try:
            start_thread(threading.Thread(target=work, name="fastload-store", daemon=True))
        except FastloadError:
            if self._timeout.failure is None:
                raise
            work()  # this rank comes only to say why it cannot load, which may be just that
