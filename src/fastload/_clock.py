"""What took how long: wall time by stage, thread time by activity, and what the load was bound by."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastload._trace import STAGE_LANE, Span
from fastload.report import ACTIVITIES, EXCHANGE, STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._trace import Trace

    Facts = Callable[[], Mapping[str, object]]

TURN = "turn"
"""Waiting for one's turn to digest, where a digest of a whole file is taken in order: a report counts it as waiting."""
PEERS = "peers"
"""Waiting for what other ranks send, or for one's turn to send: a report counts it as exchanging with them."""
CAST = "cast"
"""Casting on the thread that takes the tensors: a report counts it as copying."""
_NO_FACTS: Mapping[str, object] = {}


class Clock:
    """Wall time by stage. A stage lasts until the next one begins, so that together they are the whole."""

    def __init__(self) -> None:
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.spans: list[Span] = []
        self.unasked_s = 0.0
        """Of the stream: before anybody asked for a tensor."""
        self._is_asked = False
        self._stage = STAGES[0]
        self._since_s = time.perf_counter()

    def ask(self) -> None:
        """Somebody asks for the first tensor of a stream that could have begun before."""
        self.enter("stream")
        self._is_asked = True

    def enter(self, stage: str) -> None:
        """End the running stage and begin ``stage``."""
        now = time.perf_counter()
        self.stages[self._stage] += now - self._since_s
        if self._stage == "stream" and not self._is_asked:
            self.unasked_s += now - self._since_s
        self.spans.append(Span(STAGE_LANE, self._stage, "stage", self._since_s, now, _NO_FACTS))
        self._stage, self._since_s = stage, now


class _Own:
    """What one thread has measured. Only that thread adds to it, so that nobody waits for a lock."""

    __slots__ = ("inner_s", "last_s", "seconds")

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*ACTIVITIES, TURN, EXCHANGE, PEERS, CAST), 0.0)
        self.inner_s = 0.0
        """Measured inside of what it measures now."""
        self.last_s = 0.0


class Busy:
    """Thread time by activity; any thread may add to it."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        """Is told what is measured from now on."""
        self._all: list[_Own] = [_Own()]
        self._threads = threading.local()

    @property
    def seconds(self) -> dict[str, float]:
        """By activity, so far."""
        everybody = list(self._all)
        return {activity: sum(own.seconds[activity] for own in everybody) for activity in everybody[0].seconds}

    @property
    def last_s(self) -> float:
        """When the last of what workers did so far ended."""
        return max(own.last_s for own in list(self._all))

    @property
    def by_activity(self) -> dict[str, float]:
        """The seconds, as a report has them."""
        seconds = self.seconds
        exchange_s = seconds[EXCHANGE] + seconds[PEERS]
        exchange = {EXCHANGE: exchange_s} if exchange_s else {}
        alone = {name: seconds[name] for name in ACTIVITIES}
        wait_s, copy_s = seconds["wait"] + seconds[TURN], seconds["copy"] + seconds[CAST]
        return alone | {"wait": wait_s, "copy": copy_s} | exchange

    def measure(self, activity: str, name: str = "", facts: Facts = dict) -> Measurement:
        """Count the block's time as ``activity``, without what is measured inside of it: that is another's.

        A trace shows it as ``name``, with ``facts``, for which only a trace asks.
        """
        return Measurement(self, activity, name, facts)

    def own(self) -> _Own:
        """The calling thread's."""
        own: _Own | None = getattr(self._threads, "own", None)
        if own is None:
            own = self._threads.own = _Own()
            self._all.append(own)
        return own


class Measurement:
    """A block whose time is counted. A class, since a generator costs twice as much, and each extent has several."""

    __slots__ = ("_activity", "_begin_s", "_busy", "_facts", "_name", "_outer_s", "_own")

    def __init__(self, busy: Busy, activity: str, name: str, facts: Facts) -> None:
        self._busy = busy
        self._activity = activity
        self._name = name
        self._facts = facts

    def __enter__(self) -> None:
        own = self._own = self._busy.own()
        self._outer_s, own.inner_s = own.inner_s, 0.0
        self._begin_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        end_s = time.perf_counter()
        elapsed_s = end_s - self._begin_s
        own = self._own
        own.seconds[self._activity] += elapsed_s - own.inner_s
        own.inner_s = self._outer_s + elapsed_s
        if self._activity != CAST:
            own.last_s = end_s
        if self._busy.trace is not None:
            lane = threading.current_thread().name
            facts = self._facts()
            self._busy.trace.add(Span(lane, self._name or self._activity, self._activity, self._begin_s, end_s, facts))


class Verdict(NamedTuple):
    """What a load was bound by."""

    bound_by: str
    bottleneck: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was done, and how long each thing took."""

    reader: str
    bytes_read: int
    stages: Mapping[str, float]
    busy_s: Mapping[str, float]
    """As :class:`Busy` has it."""
    threads: int = 0
    done_early_s: float = 0.0
    """How long the stream went on after the last of its threads had nothing left to do."""
    unasked_s: float = 0.0
    """How long it was there before anybody asked for a tensor."""


_STAGE_WORDS = {
    "resolve": "finding the model",
    "plan": "reading headers and planning",
    "publish": "publishing what is kept on the local tier",
    "finish": "finishing",
}


def judge(work: Work) -> Verdict:
    """The longest stage; if that is the stream, the activity that its threads spent most of their time in.

    Where they mostly waited, began long after they could have, or were done before it ended, the caller was slower.
    """
    if not work.bytes_read or not sum(work.busy_s.values()):
        return Verdict("read", "nothing was read")
    stage = max(work.stages, key=lambda name: work.stages[name])
    if stage in _STAGE_WORDS:
        whole_s = sum(work.stages.values())
        return Verdict(stage, f"{_STAGE_WORDS[stage]}: {work.stages[stage] / whole_s:.0%} of {whole_s:.2f} s")
    stream_s = work.stages[stage]
    cast_s = work.busy_s.get(CAST, 0.0)
    if cast_s > stream_s / 2:
        return Verdict("copy", f"casting, which the caller's thread does: {cast_s / stream_s:.0%} of {stream_s:.2f} s")
    spent_s = _sum_up(work)
    activity = max(spent_s, key=lambda name: spent_s[name])
    share = f"{spent_s[activity] / sum(spent_s.values()):.0%} of the workers' time"
    if activity == "wait":
        return Verdict("caller", f"the caller: {share} was spent waiting for tensors to be taken")
    rate = f"{work.bytes_read / stream_s / 1e9:.2f} GB/s"
    what = {
        "read": f"reading ({work.reader})",
        "copy": "copying into place",
        "hash": "digesting",
        "write": "keeping a copy on the local tier",
        EXCHANGE: "exchanging with other ranks",
    }[activity]
    return Verdict(activity, f"{what}: {share}, at {rate} overall")


def _sum_up(work: Work) -> dict[str, float]:
    """Seconds by what was waited for.

    Who waits for a turn to digest waits for digests; who has not begun, or is done, for the caller.
    """
    spent_s = dict(work.busy_s)
    spent_s.pop(CAST, None)  # no worker's
    if PEERS in spent_s:
        spent_s[EXCHANGE] = spent_s.get(EXCHANGE, 0.0) + spent_s.pop(PEERS)
    spent_s["hash"] = spent_s.get("hash", 0.0) + spent_s.pop(TURN, 0.0)
    spent_s["wait"] = spent_s.get("wait", 0.0) + work.threads * (work.unasked_s + work.done_early_s)
    return spent_s
