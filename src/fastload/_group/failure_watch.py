"""Where rank 0, while it waits for the others, finds what those say that may open no socket to come by."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Self

from fastload._group.store_failures import failed_key, heard_key
from fastload._thread import start_thread
from fastload.errors import FastloadError, GroupError

if TYPE_CHECKING:
    from fastload._group.rendezvous_store import RendezvousStore
    from fastload._group.timeout import RendezvousTimeout

_LOOK_S = 0.25
_MOMENT_S = 0.5
_GRACE_S = 2.0


class FailureWatch:
    """For one rendezvous. A thread of its own looks into it: the store may not answer, while others come by sockets."""

    def __init__(self, store: RendezvousStore, token: str, ranks: set[int], timeout: RendezvousTimeout) -> None:
        """``ranks``: those that may still have something to say; who has said it is taken out."""
        self._store = store
        self._token = token
        self.ranks = ranks
        self._timeout = timeout
        self._failure: FastloadError | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fastload-failure-watch", daemon=True)

    def check(self) -> None:
        """Raise the first ``GroupError`` that was found; or why nobody looks, or finds anything."""
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        try:
            start_thread(self._thread)
        except FastloadError as error:
            self._is_closed.set()
            if self._timeout.failure is None:  # else this rank comes only to say why it cannot load
                self._failure = error
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._thread.join(_MOMENT_S)

    def _watch(self) -> None:
        try:
            while not self._is_closed.wait(_LOOK_S):
                self._look()
        except FastloadError as error:
            # Without the store nobody finds the way here any more, except those that have found it already.
            if not self._is_closed.wait(_GRACE_S):
                self._failure = self._failure or error

    def _look(self) -> None:
        said = self._store.read(failed_key(self._token))
        if said is None:
            return
        rank, what, hint = json.loads(said)
        if rank in self.ranks:
            self._failure = self._failure or GroupError(what, hint)
            self.ranks.discard(rank)
            self._store.write(heard_key(self._token, rank), "")
