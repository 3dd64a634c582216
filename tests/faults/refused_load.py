"""``load`` where the system says no, or lies: each fault at each n-th of the calls that may have it, by each reader.

The tensors of every load are compared: success is the right ones. And after every failure the next load is right.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from arena import arena, in_memory, most_calls
from results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena import Arena
    from workers import Done, Worker

READERS = ("direct", "buffered", "mmap")
PLACES = {"local": "the local tier, with a manifest", "shared": "a mount, whose blobs' names are digests"}
_ONE_BYTE_LIE = "retval=1"
_READS = ("error=EIO", "error=ESTALE", "error=EINTR", "error=ENOMEM", "retval=0", _ONE_BYTE_LIE)
"""The last two: the file is said to end here, and one byte is said to be there that is not."""
FAULTS = {
    "preadv2": _READS,
    "pread64": _READS,
    "openat": ("error=EMFILE", "error=ENOMEM", "error=EIO", "error=ESTALE"),
    "read": ("error=EIO", "error=ESTALE", "error=EINTR"),
    "newfstatat": ("error=EIO", "error=ESTALE"),
    "statx": ("error=EIO", "error=ESTALE"),
    "getdents64": ("error=EIO", "error=ESTALE"),
    "mmap": ("error=ENOMEM",),
    "madvise": ("error=ENOMEM", "error=EINVAL"),
    "fadvise64": ("error=EIO",),
    "flock": ("error=ENOLCK", "error=EINTR", "error=EIO"),
    "clone3": ("error=EAGAIN",),
}
_ONCE = frozenset({"error=EINTR", _ONE_BYTE_LIE})
"""For ever they mean to try for ever (PEP 475), or to read a byte at a time."""
IMPORTED = ("fastload._load.engine", "checked_load")
"""What is imported lazily else, in hundreds of calls, where an error is one of the installation."""


def fail_loads(worker: Worker, place: str, calls: Sequence[str] = tuple(FAULTS), every: int = 1) -> Row:
    """Each ``every``-th case: one call fails, or that one and all after it. ``worker`` has imported ``IMPORTED``."""
    row = Row(f"one call of a `load` fails or lies, or all from there on, from {PLACES[place]}")
    with in_memory() as folder, arena(worker, folder, "mount") as found:
        assert found.warm().code == 0
        loads = Loads(found, place)
        cases = [case for reader in READERS for case in _cases(reader, loads.count_calls(reader, calls))]
        for reader, call, fault, when in cases[::every]:
            done = loads.run(reader, ["-o", "/dev/null", "-e", f"inject={call}:{fault}:when={when}"])
            end, wrong = _judge(done)
            if done.code and (after := loads.run(reader)).code:
                wrong = wrong or f"the next load ends with {after.code}: {after.err[-300:]}"
            row.add(f"{reader}: {call} {fault} {when}", end, wrong)
    return row


class Loads:
    """Loads of the one model, from one place."""

    def __init__(self, arena: Arena, place: str) -> None:
        self._arena = arena
        self._environ = arena.environ | {"FASTLOAD_TIERS": place}

    def run(self, reader: str, strace: Sequence[str] = ()) -> Done:
        """One of them, by ``reader``."""
        return self._arena.worker.start("checked_load:run", reader, environ=self._environ, strace=strace).wait()

    def count_calls(self, reader: str, calls: Sequence[str]) -> dict[str, int]:
        """How often it makes each of these calls, if all is well."""
        log = self._arena.tiers.folder / "calls"
        done = self.run(reader, ["-o", str(log), "-e", f"trace={','.join(calls)}"])
        assert done.code == 0, done.err
        return most_calls(log, calls)


def _cases(reader: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str, str, str]]:
    for call, count in counts.items():
        for fault, n in itertools.product(FAULTS[call], range(1, count + 1)):
            for more in ("",) if fault in _ONCE else ("", "+"):
                yield reader, call, fault, f"{n}{more}"


def _judge(done: Done) -> tuple[str, str | None]:
    """How it ended, and what is wrong with that."""
    end = "right" if not done.code else f"exit {done.code}"
    return end, None if done.is_typed else f"{end}: {done.err[-600:]}"
