"""``warm`` and ``load`` where the system says no: each error at each n-th of the calls that may give it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena import Arena
    from workers import Done

ERRORS = {
    "pwrite64": ("ENOSPC", "EDQUOT", "EIO", "EINTR"),
    "write": ("ENOSPC", "EDQUOT", "EIO"),
    "fallocate": ("ENOSPC", "EDQUOT", "EIO", "EOPNOTSUPP"),
    "ftruncate": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "mkdir": ("EROFS", "EACCES", "ENOSPC", "EDQUOT"),
    "rename": ("EROFS", "EACCES", "EIO", "ENOSPC", "ESTALE"),
    "symlink": ("EROFS", "EACCES", "ENOSPC", "EIO"),
    "unlink": ("EROFS", "EACCES", "EIO", "ESTALE"),
    "rmdir": ("EROFS", "EACCES", "EIO"),
    "fchmod": ("EPERM", "EROFS"),
    "pread64": ("EIO", "ESTALE", "EINTR"),
    "preadv2": ("EIO", "ESTALE", "EINTR"),
    "read": ("EIO", "ESTALE", "EINTR"),
    "openat": ("EMFILE", "ENFILE", "EACCES", "ESTALE", "EIO", "ENOMEM"),
    "newfstatat": ("ESTALE", "EIO", "EACCES"),
    "getdents64": ("ESTALE", "EIO"),
    "flock": ("ENOLCK", "EINTR", "EIO"),
    "mmap": ("ENOMEM",),
    "clone3": ("EAGAIN",),
    "statfs": ("ESTALE", "EIO"),
}
"""What each call may fail with: open(2), write(2), fsync(2), rename(2), flock(2), mmap(2), and NFS."""


def _cases(counts: Mapping[str, int], calls: Sequence[str]) -> Iterator[tuple[str, str, int, str]]:
    for call in calls:
        for error, n in itertools.product(ERRORS[call], range(1, counts[call] + 1)):
            for more in ("",) if error == "EINTR" else ("", "+"):  # which for ever means to try for ever (PEP 475)
                yield call, error, n, more


def fail_calls(arena: Arena, calls: Sequence[str] = tuple(ERRORS), every: int = 1) -> Row:
    """Each ``every``-th case: one call fails, or that one and all after it."""
    row = Row("one call fails, or all from there on: " + (calls[0] if len(calls) == 1 else f"{len(calls)} calls"))
    counts = arena.count_calls(calls)
    for call, error, n, more in itertools.islice(_cases(counts, calls), 0, None, every):
        arena.clear()
        done = arena.warm(["-o", "/dev/null", "-e", f"inject={call}:error={error}:when={n}{more}"])
        end, wrong = _judge(done, call)
        wrong = wrong or arena.find_partial() or arena.find_unhealed()
        row.add(f"{call} {error} {n}{more}", end, wrong)
    arena.clear()
    return row


def _judge(done: Done, call: str) -> tuple[str, str | None]:
    """How it ended, and what is wrong with that."""
    # The command line takes an OSError that nobody has translated for one of its stdout, which only ``write`` can give.
    if done.is_typed and (call == "write" or "'stdout'" not in done.err):
        return ("right" if not done.code else f"exit {done.code}"), None
    return f"exit {done.code}", f"exit {done.code}: {done.err[-600:]}"
