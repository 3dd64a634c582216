"""What took how long: wall time by stage, thread time by activity, and what the load was bound by."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from fastload.report import ACTIVITIES, STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Wall time by stage. A stage lasts until the next one begins, so that together they are the whole."""

    def __init__(self) -> None:
        self.stages = dict.fromkeys(STAGES, 0.0)
        self._stage = STAGES[0]
        self._since_s = time.perf_counter()

    def enter(self, stage: str) -> None:
        """End the running stage and begin ``stage``."""
        now = time.perf_counter()
        self.stages[self._stage] += now - self._since_s
        self._stage, self._since_s = stage, now


class Busy:
    """Thread time by activity; any thread may add to it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self._lock = threading.Lock()
        self._inner = threading.local()

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Count the block's time as ``activity``, without what is measured inside of it: that is another's."""
        before_s = getattr(self._inner, "seconds", 0.0)
        self._inner.seconds = 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            elapsed_s = time.perf_counter() - begin
            with self._lock:
                self.seconds[activity] += elapsed_s - self._inner.seconds
            self._inner.seconds = before_s + elapsed_s


class Verdict(NamedTuple):
    """What a load was bound by."""

    bound_by: str
    bottleneck: str


def judge(busy_s: dict[str, float], *, reader: str, bytes_read: int, stream_s: float) -> Verdict:
    """The activity that threads spent most of their time in; where they mostly waited, the caller was slower."""
    total_s = sum(busy_s.values())
    if not bytes_read or not total_s:
        return Verdict("read", "nothing was read")
    activity = max(busy_s, key=lambda name: busy_s[name])
    share = f"{busy_s[activity] / total_s:.0%} of the workers' time"
    if activity == "wait":
        return Verdict("caller", f"the caller: {share} was spent waiting for tensors to be taken")
    rate = f"{bytes_read / stream_s / 1e9:.2f} GB/s" if stream_s else "no time"
    what = {
        "read": f"reading ({reader})",
        "copy": "copying into place",
        "hash": "digesting",
        "write": "keeping a copy on the local tier",
        "exchange": "exchanging with other ranks",
    }.get(activity, activity)
    return Verdict(activity, f"{what}: {share}, at {rate} overall")
