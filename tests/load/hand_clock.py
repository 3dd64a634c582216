"""A clock whose hours pass where a test says so: against them a machine that is held up for seconds does not count."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

HOUR_S = 3600.0


class HandClock:
    """``time.perf_counter``, by which all is measured that a report says, and hours beside it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._passed_s = 0.0
        self._lock = threading.Lock()
        real = time.perf_counter
        patch.setattr(time, "perf_counter", lambda: real() + self._passed_s)

    def pass_hour(self) -> None:
        """It is an hour later at once."""
        with self._lock:
            self._passed_s += HOUR_S

    def let_last(self, owner: object, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        """Each call of ``owner.name`` takes an hour longer, where ``when`` says so of what it was called with."""
        real = getattr(owner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if when(*arguments):
                self.pass_hour()
            return real(*arguments, **keywords)

        self._patch.setattr(owner, name, call)


def wait_for_workers(*, to_end: bool = False) -> None:
    """Until each thread that reads for a load waits for its caller, or, where there is room for all, has ended."""
    for thread in threading.enumerate():
        if not thread.name.startswith("fastload-"):
            continue
        if to_end:
            thread.join(60)
        until_s = time.monotonic() + 60
        while thread.is_alive() and not _waits(thread):
            assert time.monotonic() < until_s
            time.sleep(0.01)


def _waits(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_filename == threading.__file__ and frame.f_code.co_name == "wait"
