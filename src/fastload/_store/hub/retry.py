"""What passes, and how often it is waited for."""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from fastload.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._store.hub.access import Patience

_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(?P<seconds>\d{1,9})\b")
_SECONDS = re.compile(r"\d{1,9}")
_T = TypeVar("_T")


class TransientError(Exception):
    """Asking again may help. Never leaves this room: when patience is at its end, ``error`` does."""

    def __init__(self, url: str, reason: str, hint: str = "", *, after_s: float | None = None) -> None:
        super().__init__(f"{url}: {reason}")
        self.error = NetworkError(url, reason, hint)
        self.after_s = after_s
        """How long the server wants to be left alone."""


class Attempts:
    """Counts what failed in a row, and waits between: twice as long each time, and never all clients at once."""

    def __init__(self, patience: Patience, stopped: threading.Event | None = None) -> None:
        self._patience = patience
        self._stopped = stopped or threading.Event()
        self._failed = 0
        self._begin_s = time.monotonic()

    def progressed(self) -> None:
        """Start to count again."""
        self._failed = 0

    def wait_after(self, failure: TransientError) -> None:
        """Return when it is time to ask again, at once where the caller was stopped meanwhile.

        Raises:
            NetworkError: that was the last attempt.
        """
        self._failed += 1
        if self._failed >= self._patience.attempts or self._is_late():
            times = f" ({self._failed} times in a row)" if self._failed > 1 else ""
            raise replace(failure.error, reason=failure.error.reason + times) from failure
        self._stopped.wait(self._pause_s(failure))

    def _is_late(self) -> bool:
        most_s = self._patience.give_up_after_s
        return most_s is not None and time.monotonic() - self._begin_s > most_s

    def _pause_s(self, failure: TransientError) -> float:
        longest_s = self._patience.longest_pause_s
        pause_s = min(self._patience.first_pause_s * 2.0 ** (self._failed - 1), longest_s)
        pause_s *= random.uniform(0.5, 1)  # noqa: S311 - spreads clients, guards nothing
        return max(pause_s, min(failure.after_s or 0.0, longest_s))


def persist(patience: Patience, attempt: Callable[[], _T]) -> _T:
    """What ``attempt`` returns, as soon as it returns.

    Raises:
        NetworkError: it raised :class:`TransientError` too often.
    """
    attempts = Attempts(patience)
    while True:
        try:
            return attempt()
        except TransientError as failure:
            attempts.wait_after(failure)


def find_asked_pause(headers: Mapping[str, str]) -> float | None:
    """How long a server asks to wait: by ``Retry-After``, or by the hub's ``RateLimit: "api";r=0;t=55``."""
    after = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(after):
        return float(after)
    limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(limit["seconds"]) if limit else _until(after, headers.get("Date", ""))


def _until(date: str, now: str) -> float | None:
    """How long it is to ``date`` from ``now``, both by the server's clock: ours may be another."""
    try:
        then_s, now_s = (parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp() for text in (date, now))
    except (ValueError, OverflowError):  # no date, or one of no calendar
        return None
    return max(then_s - now_s, 0.0)
