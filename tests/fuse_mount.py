"""A file system of our own, by the kernel's FUSE protocol: shows a folder, until its reads shall fail or hang.

Spoken to /dev/fuse directly, which needs root and nothing else: neither libfuse nor fusermount. Only what reading
takes; see fuse(4) and linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_RDONLY_NOSUID_NODEV = 1 | 2 | 4
_FORCE, _DETACH = 1, 2
_MAX_REQUEST_BYTES = (1 << 20) + 4096
_LOOKUP, _FORGET, _GETATTR, _READLINK, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 5, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _ACCESS, _INTERRUPT, _BATCH_FORGET = 25, 26, 27, 28, 29, 34, 36, 42
_UNANSWERED = frozenset({_FORGET, _INTERRUPT, _BATCH_FORGET})
_NOTHING_TO_SAY = frozenset({_RELEASE, _FLUSH, _RELEASEDIR, _ACCESS})
_ROOT = 1
_NO_FLUSH = 1 << 5
"""Else whoever is killed still waits, in closing its files, for a server that is gone."""
_PROTOCOL = (7, 31)


def why_none() -> str | None:
    """Why there can be no such mount here."""
    if os.geteuid():
        return "only root may mount"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"no FUSE: {error}"
    return None


@dataclass(frozen=True)
class Fault:
    """What becomes of reads after the first ``right_reads``.

    It hangs as a mount does whose server is gone: nobody takes its requests any more, so that a signal that kills
    still ends whoever waits. One that took a request and does not answer could be ended by nobody.
    """

    right_reads: int
    error: int | None
    """An errno; None: it hangs, and so does whatever else is asked."""
    bad: range | None = None
    """Only reads fail that touch these bytes of a file; None: all of them."""


class _Folder:
    """Answers requests about one folder. What a number means is never forgotten: models have few files."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self._paths = {_ROOT: os.fspath(folder)}
        self._numbers = {os.fspath(folder): _ROOT}
        self._fault = fault
        self.reads = 0
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _INIT: self._init,
            _LOOKUP: self._look_up,
            _GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + self._attributes(node),
            _READLINK: lambda node, _: os.fsencode(os.readlink(self._paths[node])),
            _OPEN: lambda node, _: struct.pack("<QII", node, _NO_FLUSH, 0),
            _OPENDIR: lambda node, _: struct.pack("<QII", node, 0, 0),
            _READ: self._read,
            _READDIR: self._read_folder,
            _STATFS: lambda _node, _: struct.pack("<5Q4I6I", 1 << 20, 0, 0, 0, 0, 4096, 255, 4096, 0, *[0] * 6),
        }

    @property
    def hangs(self) -> bool:
        """True from now on."""
        return self._fault is not None and self._fault.error is None and self.reads >= self._fault.right_reads

    def answer(self, request: bytes) -> bytes | None:
        """The reply, if one is due."""
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        if code in _UNANSWERED:
            return None
        try:
            body = b"" if code in _NOTHING_TO_SAY else self._answers[code](node, request[40:])
            error = 0
        except KeyError:
            body, error = b"", errno.ENOSYS
        except OSError as exc:
            body, error = b"", exc.errno or errno.EIO
        return struct.pack("<IiQ", 16 + len(body), -error, unique) + body

    def _init(self, _node: int, body: bytes) -> bytes:
        _, _, readahead, _ = struct.unpack_from("<4I", body)
        return struct.pack("<4IHHIIHHI7I", *_PROTOCOL, readahead, 0, 12, 9, 4096, 1, 0, 0, 0, *[0] * 7)

    def _look_up(self, node: int, body: bytes) -> bytes:
        path = os.path.join(self._paths[node], os.fsdecode(body.rstrip(b"\0")))
        os.lstat(path)
        number = self._numbers.setdefault(path, len(self._numbers) + 1)
        self._paths[number] = path
        return struct.pack("<4QII", number, 0, 0, 0, 0, 0) + self._attributes(number)

    def _attributes(self, node: int) -> bytes:
        found = os.lstat(self._paths[node])
        times = [divmod(ns, 1_000_000_000) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        sizes = (node, found.st_size, found.st_blocks)
        rest = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
        return struct.pack("<6Q10I", *sizes, *(s for s, _ in times), *(ns for _, ns in times), *rest)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        self.reads += 1
        if self._fault is not None and self._fault.error and self._is_bad(range(offset, offset + size)):
            raise OSError(self._fault.error, "on purpose")
        with open(self._paths[node], "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _is_bad(self, asked: range) -> bool:
        if self._fault is None or self.reads <= self._fault.right_reads:
            return False
        bad = self._fault.bad
        return bad is None or (asked.start < bad.stop and bad.start < asked.stop)

    def _read_folder(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        listing = b""
        with os.scandir(self._paths[node]) as found:
            for number, entry in enumerate(sorted(found, key=lambda entry: entry.name)):
                name = os.fsencode(entry.name)
                kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12
                one = struct.pack("<QQII", entry.inode(), number + 1, len(name), kind) + name
                one += bytes(-len(one) % 8)
                if number >= offset and len(listing) + len(one) <= size:
                    listing += one
                elif number >= offset:
                    break
        return listing


class FuseMount:
    """A mount that shows ``folder`` at ``at``."""

    def __init__(self, folder: Path, at: Path, fault: Fault | None) -> None:
        self.path = at
        self._folder = _Folder(folder, fault)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other,max_read=131072"
        _check(_LIBC.mount(b"fastload-test", bytes(at), b"fuse", _RDONLY_NOSUID_NODEV, options.encode()))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fuse", daemon=True)
        self._thread.start()

    @property
    def reads(self) -> int:
        """How many were asked for."""
        return self._folder.reads

    def _serve(self) -> None:
        while not self._folder.hangs:
            try:
                request = os.read(self._device, _MAX_REQUEST_BYTES)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR}:  # the request was broken off
                    continue
                return  # ENODEV: unmounted
            reply = self._folder.answer(request)
            if reply is not None:
                try:
                    os.write(self._device, reply)
                except OSError as error:
                    if error.errno != errno.ENOENT:  # whoever asked has gone
                        return
        self._is_over.wait()

    def detach(self) -> None:
        """``umount -l``: gone from sight; who has a file open may read on."""
        _check(_LIBC.umount2(bytes(self.path), _DETACH))

    def close(self) -> None:
        """Whoever still waits gets an error, and it is gone."""
        self._is_over.set()
        _LIBC.umount2(bytes(self.path), _FORCE | _DETACH)  # it may be detached already
        self._thread.join(10)
        os.close(self._device)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def fuse_mount(folder: Path, at: Path, fault: Fault | None = None) -> Iterator[FuseMount]:
    """``folder``, to be read at ``at``, which is made, until ``fault``."""
    at.mkdir()
    mount = FuseMount(folder, at, fault)
    try:
        yield mount
    finally:
        mount.close()
        at.rmdir()
