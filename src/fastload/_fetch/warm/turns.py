"""Whose turn it is: one brings a model, a few copy from a mount at once, and whoever waits says for whom."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from fastload._store.layout import lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import wait_hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.find.meant import Meant
    from fastload._fetch.warm.request import WarmRequest
    from fastload._store.admit.remains import Leased
    from fastload._store.lease.holder import Holder
    from fastload._store.lease.lease import Lease
    from fastload._store.offer import Offer

_TELL_EVERY_S = 10.0


def _say_nothing(_: str) -> None:
    """Nobody waits for one who holds nothing yet."""


class Turns:
    """The leases that one ``warm`` waits for."""

    def __init__(self, request: WarmRequest, check: Callable[[], None]) -> None:
        """``check`` raises when it is time to give up."""
        self._request = request
        self._check = check

    @contextmanager
    def bringing(self, leased: Leased, meant: Meant, is_done: Callable[[], bool]) -> Iterator[Lease | None]:
        """The right to be the one who brings it; None once ``is_done``."""
        lease = self._wait(leased.folder, [leased.name], f"warming {meant.candidate}", is_done, _say_nothing)
        with lease or nullcontext():
            yield lease

    @contextmanager
    def copying(self, offer: Offer, bringing: Lease | None) -> Iterator[Lease | None]:
        """One of the few places of those who copy from a shared tier at once; None: nobody counts them.

        Whoever waits for ``bringing`` sees by it, too, that the place that this waits for comes nearer.
        """
        mount = offer.tier.mount
        if self._request.slots is None or mount is None:
            yield None
            return
        folder = lease_folder(mount)
        names = [f"slot-{number}" for number in range(self._request.slots)]
        with _saying(bringing) as say:
            lease = self._wait(folder, names, f"copying {offer.repo}", lambda: False, say)
        with lease or nullcontext():
            yield lease

    def _wait(
        self, folder: str, names: list[str], what: str, is_done: Callable[[], bool], say: Callable[[str], None]
    ) -> Lease | None:
        return wait_hold(folder, names, what, LeaseTimes(), is_done=is_done, tell=self.at_look(say))

    def at_look(self, say: Callable[[str], None] = _say_nothing) -> Callable[[Holder], None]:
        """What a wait does at each look, with whom it is for: gives up when it is time to.

        Else it says so to those who wait for this one, by ``say``, and to people now and then.
        """
        told: dict[str, float] = {}

        def look(holder: Holder) -> None:
            self._check()
            say(f"waiting for {holder}")
            now_s = time.monotonic()
            if now_s - told.get(holder.id, float("-inf")) >= _TELL_EVERY_S:
                told[holder.id] = now_s
                self._request.tell(f"waiting for {holder}")

        return look


@contextmanager
def _saying(lease: Lease | None) -> Iterator[Callable[[str], None]]:
    """What is said by ``lease`` meanwhile; afterwards it says again what it did before."""
    if lease is None:
        yield _say_nothing
        return
    before = lease.record.what
    yield lease.say
    lease.say(before)
