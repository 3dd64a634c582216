"""Every read and write of a file does a part of what it was asked, as any may that a signal, a quota or a server cuts.

strace can say that a call did less, but then it has done nothing: the functions of the C library are replaced instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena import REPO, SOURCES, arena
from results import Row

if TYPE_CHECKING:
    from pathlib import Path

    from workers import Worker

SHIM = r"""
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#define PAGE 4096

/* Half of it, of whole pages where there is more than one: what O_DIRECT transfers stays aligned. */
static size_t cut(int fd, size_t count) {
    struct stat found;
    if (count < 2 || fstat(fd, &found) || !S_ISREG(found.st_mode)) return count;
    size_t half = count / 2;
    return count >= 2 * PAGE ? half / PAGE * PAGE : half;
}

ssize_t read(int fd, void *to, size_t count) { return syscall(SYS_read, fd, to, cut(fd, count)); }
ssize_t write(int fd, const void *from, size_t count) { return syscall(SYS_write, fd, from, cut(fd, count)); }

static ssize_t at(long number, int fd, const struct iovec *parts, off_t offset, int flags) {
    struct iovec first = {parts[0].iov_base, cut(fd, parts[0].iov_len)};
    return syscall(number, fd, &first, 1L, offset, 0L, flags);
}
#define AT(name, number) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    { return at(number, fd, parts, offset, 0); }
#define AT2(name, number) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset, int flags) \
    { return at(number, fd, parts, offset, flags); }
AT(preadv, SYS_preadv2) AT(preadv64, SYS_preadv2) AT2(preadv2, SYS_preadv2) AT2(preadv64v2, SYS_preadv2)
AT(pwritev, SYS_pwritev2) AT(pwritev64, SYS_pwritev2) AT2(pwritev2, SYS_pwritev2) AT2(pwritev64v2, SYS_pwritev2)
#define FLAT(name, number, kind) \
    ssize_t name(int fd, kind *memory, size_t count, off_t offset) \
    { return syscall(number, fd, memory, cut(fd, count), offset); }
FLAT(pread, SYS_pread64, void) FLAT(pread64, SYS_pread64, void)
FLAT(pwrite, SYS_pwrite64, const void) FLAT(pwrite64, SYS_pwrite64, const void)
"""
_READERS = ("auto", "direct", "buffered", "mmap")


def do_less(worker: Worker, folder: Path) -> Row:
    """``warm`` from each source, then loads by each reader, whole and by way of the mount, and ``verify``."""
    row = Row("every read and write of a file does half of what it is asked, for `warm`, `load` and `verify`")
    for source in SOURCES:
        with arena(worker, folder, source) as place:
            _add(row, f"warm from {source}", place.warm().code, place.find_partial())
            for reader in _READERS:
                done = worker.run("load", REPO, "--reader", reader, "--verify", "require", environ=place.environ)
                _add(row, f"load by {reader}", done.code, done.err[-300:] if done.code else None)
            done = worker.run("verify", REPO, environ=place.environ)
            _add(row, "verify", done.code, done.err[-300:] if done.code else None)
            place.clear()
            done = worker.run("load", REPO, environ=place.environ)
            _add(row, f"load from {source}", done.code, place.find_partial() or place.find_unhealed())
    return row


def _add(row: Row, case: str, code: int, wrong: str | None) -> None:
    row.add(case, f"exit {code}" if code else "right", f"exit {code}: {wrong}" if code else wrong)
