"""``warm`` and ``load`` from a hub whose network goes wrong: right, or an error of ours with its exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena import REPO, arena
from hub_faults import PORTAL, Cut, Drip, Headers, NoRanges, Redirect, Refuse, Stall, WrongBytes, too_many_requests
from results import Row
from warming import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arena import Arena
    from hub_faults import Fault
    from workers import Worker

RIGHT, NETWORK, INTEGRITY, DEADLINE = 0, 10, 13, 19
_DEADLINE_S = "6"
_LONG_S = 30.0
_ALWAYS = None
CLOCK = """
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t which, struct timespec *now) {
    static unsigned calls;
    int code = syscall(SYS_clock_gettime, which, now);
    if (!code && which == CLOCK_REALTIME) now->tv_sec += (long)(__sync_fetch_and_add(&calls, 1) % 3) * 90000 - 90000;
    return code;
}
"""
"""Each look at the clock is a day before or after the one before."""


@dataclass(frozen=True)
class Case:
    """What goes wrong, how often, and how that may end."""

    what: str
    fault: Fault | None
    ends: tuple[int, ...]
    host: str = "cdn"
    times: int | None = 1
    path: str = "*"
    is_slow: bool = False


CASES = (
    Case("nothing", None, (RIGHT,)),
    Case("reset after each MiB", Cut(MIB), (RIGHT,), times=_ALWAYS),
    Case("reset before any answer, always", Cut(0), (NETWORK, DEADLINE), times=_ALWAYS, is_slow=True),
    Case("reset before any answer of the hub, 3 times", Cut(0), (RIGHT,), host="hub", times=3),
    Case(
        "stalled for 30 s in the middle, always", Stall(MIB, _LONG_S), (NETWORK, DEADLINE), times=_ALWAYS, is_slow=True
    ),
    Case(
        "the hub stalls for 30 s, always",
        Stall(-1, _LONG_S),
        (NETWORK, DEADLINE),
        host="hub",
        times=_ALWAYS,
        is_slow=True,
    ),
    Case("a byte at a time, always", Drip(1, 0.05), (NETWORK, DEADLINE), times=_ALWAYS, is_slow=True),
    Case("the hub's a byte at a time", Drip(1, 0.05), (NETWORK, DEADLINE), host="hub", times=_ALWAYS, is_slow=True),
    Case("503, 3 times", Refuse(503), (RIGHT,), times=3),
    Case("500, 502, 504 of the hub", Refuse(502), (RIGHT,), host="hub", times=2),
    Case("503, always", Refuse(503), (NETWORK, DEADLINE), times=_ALWAYS, is_slow=True),
    Case("429 with Retry-After", too_many_requests(1), (RIGHT,), times=2),
    Case("429 of the hub with Retry-After", too_many_requests(1), (RIGHT,), host="hub", times=2),
    Case("429 with Retry-After of an hour", too_many_requests(3600), (NETWORK, DEADLINE), times=_ALWAYS, is_slow=True),
    Case("a length that is too small, once", Headers({"Content-Range": "bytes 0-9/10"}), (INTEGRITY,)),
    Case("a length that is too small", Headers({"Content-Range": "bytes 0-9/10"}), (INTEGRITY,), times=_ALWAYS),
    Case("a wrong byte, once", WrongBytes(MIB), (RIGHT,)),
    Case("a wrong byte, always", WrongBytes(MIB), (INTEGRITY,), times=_ALWAYS),
    Case("ranges ignored", NoRanges(), (RIGHT,), times=_ALWAYS),
    Case("ranges ignored, no length", NoRanges(has_length=False), (RIGHT,), times=_ALWAYS),
    Case("HTML for the bytes", PORTAL, (NETWORK,), times=_ALWAYS),
    Case("HTML for the listing", PORTAL, (NETWORK,), host="hub", times=_ALWAYS, path="/api/*"),
    Case("a loop of redirects, of the bytes", Redirect("/org/name/x"), (NETWORK,), times=_ALWAYS),
    Case("a loop of redirects, of the listing", Redirect("/api/models/org/name"), (NETWORK,), "hub", _ALWAYS, "/api/*"),
    Case("a link that has expired", Refuse(403), (RIGHT,), times=1),
)


def break_network(
    worker: Worker, folder: Path, cases: Sequence[Case] = CASES, words: Sequence[str] = ("warm", "load")
) -> Row:
    """Each case for each of the ``words``."""
    row = Row(f"the network goes wrong in {len(cases)} ways, for " + " and ".join(f"`{word}`" for word in words))
    with arena(worker, folder, "hub") as place:
        for case in cases:
            for word in words:
                end, wrong = _try(place, case, word)
                row.add(f"{word}, {case.what}", end, wrong)
    return row


def lose_names(worker: Worker, folder: Path) -> Row:
    """A hub whose name nobody knows."""
    row = Row("the hub's name is unknown")
    with arena(worker, folder, "hub") as place:
        place.environ["HF_ENDPOINT"] = "http://hub.invalid"
        for word in ("warm", "load"):
            done = worker.run(word, REPO, "--deadline", _DEADLINE_S, environ=place.environ)
            row.add(word, f"exit {done.code}", None if done.code in {NETWORK, DEADLINE} else done.err[-400:])
    return row


def _try(place: Arena, case: Case, word: str) -> tuple[str, str | None]:
    assert place.hub is not None
    place.clear()
    if case.fault is not None:
        place.hub.faults.add(case.fault, host=case.host, path=case.path, times=case.times)
    deadline = ("--deadline", _DEADLINE_S) if case.is_slow else ()
    done = place.worker.run(word, REPO, *deadline, environ=place.environ)
    place.hub.faults.clear()
    end = "right" if not done.code else f"exit {done.code}"
    if done.code not in case.ends or not done.is_typed:
        return end, f"exit {done.code}: {done.err[-400:]}"
    return end, place.find_partial() or place.find_unhealed()
