"""Opening a file of a checkpoint, and noticing when it changes under the load.

Files of models live on mounts that other people write to. Nothing that is not a regular file is opened (a FIFO would
hang, a device may do anything), and the identity taken at the header is compared again after every read.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fastload._descriptors import DESCRIPTOR_HINTS
from fastload._format.checkpoint import FileIdentity
from fastload.errors import FastloadError, FormatError, IntegrityError, StoreError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    ProveWhole = Callable[[str, FileIdentity, memoryview], bool]
    """Called with a file's path and identity, and all of its bytes; False where nothing is known of them."""

_IOV_MAX = 1024
_INCOMPLETE = (
    "The model is incomplete: fetch it again. One with a name is completed by fastload warm NAME; where it is known "
    "what was lost, by fastload verify NAME --repair"
)
_CHANGED = "Somebody writes to it while it is loaded. Load again when that is over; new weights belong into new files"
_HINTS = DESCRIPTOR_HINTS | {
    errno.EACCES: "Give this user read permission on the file and search permission on the folders above it",
    errno.EPERM: "Give this user read permission on the file",
    errno.ESTALE: "The file server replaced the file or lost it: mount again, then load again",
    errno.EIO: "The storage is failing or its server is away: see dmesg, then load again",
}
_UNREADABLE = frozenset({errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA})
"""Bad sectors, servers that lost a file, checksums of the file system's own: other bytes may be readable."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


def identify(status: os.stat_result) -> FileIdentity:
    """The identity that ``status`` shows."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def translate(path: str, exc: OSError) -> FastloadError:
    """Our error for what the system said about ``path``."""
    if exc.errno == errno.ELOOP:
        return FormatError(path, "links that lead in a circle", "a regular file", hint="Remove the link")
    if exc.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
        dangling = os.path.islink(path)
        found = f"a link to {os.readlink(path)!r}, where nothing is" if dangling else "no file"
        return FormatError(path, found, "a regular file", hint=_INCOMPLETE)
    reason = f"cannot be read ({os.strerror(exc.errno) if exc.errno else exc})"
    return StoreError(path, reason, _HINTS.get(exc.errno or 0, "Check the storage, then load again"))


def is_unreadable(exc: BaseException) -> bool:
    """True for the system's error, or ours of it, where storage could not give what was asked for, or some of it."""
    cause = exc.__cause__ if isinstance(exc, StoreError) else exc
    return isinstance(cause, OSError) and cause.errno in _UNREADABLE


def with_blob(path: str, hint: str) -> str:
    """``hint``, after the file that a link at ``path`` leads to: that one is wrong, whatever else leads to it."""
    if not os.path.isabs(path) or not os.path.islink(path):
        return hint
    return f"The link leads to {quoted(os.path.realpath(path))}. {hint}"


def open_regular(path: str, flags: int = 0) -> int:
    """A descriptor of ``path``, opened for reading with ``flags`` added.

    Raises:
        FormatError: it is no regular file, or no file at all.
        StoreError: it cannot be read.
    """
    try:
        return regular_only(path, flags)
    except OSError as exc:
        if flags and exc.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise  # these flags are refused here; the caller knows what that means
        raise translate(path, exc) from exc


def regular_only(path: str, flags: int) -> int:
    """A descriptor of ``path``; also an ``opener`` for :func:`open`, which waits for nobody then.

    Raises:
        FormatError: it is no regular file.
        OSError: as the system says.
    """
    check_regular(path, os.stat(path))
    # O_NONBLOCK in case a FIFO took its place since: a plain open would wait for a writer for ever.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        check_regular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def advise(path: str, offset: int, length: int, advice: int) -> None:
    """Tell the kernel of these bytes, which it may heed or not; what is wrong with them shows when they are read."""
    with suppress(FastloadError, OSError):
        descriptor = open_regular(path)
        try:
            os.posix_fadvise(descriptor, offset, length, advice)
        finally:
            os.close(descriptor)


def check_regular(path: str, status: os.stat_result) -> None:
    """Raise ``FormatError`` that says what ``path`` is, unless ``status`` is that of a regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
    raise FormatError(path, kind, "a regular file", hint="Put the file itself there")


def read_proven(
    descriptor: int, offset: int, piece: memoryview, path: str, prove: Callable[[memoryview], bool] | None
) -> bool:
    """Fill ``piece`` with the file's bytes from ``offset`` on, and have it proven.

    What cannot be read is not what it should be, and is mended like that, where it is known what it should be: False.
    """
    try:
        read_fully(descriptor, offset, [piece], path=path)
    except OSError as exc:
        if prove is None or not is_unreadable(exc):
            raise
        with suppress(IntegrityError):  # nobody else has it: then what the storage said is what matters
            if prove(piece):
                return False
        raise
    if prove is not None:
        prove(piece)
    return True


def read_small_file(
    path: str,
    max_bytes: int,
    prove: ProveWhole | None = None,
    look: Callable[[os.stat_result], object] = lambda _: None,
) -> bytes:
    """All of ``path``, which must not be larger than ``max_bytes``.

    Args:
        path: absolute, where it is proven.
        max_bytes: what is larger is not even read.
        prove: called with the content, before anything in it is believed; may mend it.
        look: is shown what has been opened, whatever the path leads to by then; may raise.

    Raises:
        FormatError: it is larger, or no regular file.
        StoreError: it cannot be read.
        IntegrityError: what ``prove`` raises.
    """
    descriptor = open_regular(path)
    try:
        status = os.fstat(descriptor)
        look(status)
        identity = identify(status)
        if identity.size > max_bytes:
            raise FormatError(path, f"{identity.size:,} bytes", f"at most {max_bytes:,}")
        raw = bytearray(identity.size)
        prove_content = None if prove is None else lambda content: prove(path, identity, content)
        read_proven(descriptor, 0, memoryview(raw), path, prove_content)
    except OSError as exc:
        raise translate(path, exc) from exc
    finally:
        os.close(descriptor)
    return bytes(raw)


def read_fully(descriptor: int, offset: int, buffers: Sequence[memoryview], *, path: str) -> None:
    """Fill ``buffers`` one after another with the file's bytes from ``offset`` on, however short the single reads are.

    Raises:
        IntegrityError: the file ends before.
        OSError: as the system says; the caller translates.
    """
    pending = [buffer for buffer in buffers if len(buffer)]
    first, begin = 0, offset
    while first < len(pending):
        with noting_arrived(offset - begin):
            count = os.preadv(descriptor, pending[first : first + _IOV_MAX], offset)
        if not count:
            expected = f"{sum(map(len, pending[first:])):,} more bytes"
            raise IntegrityError(path, offset, "the end of the file", expected, _CHANGED)
        offset += count
        while count:
            step = min(count, len(pending[first]))
            count -= step
            if step == len(pending[first]):
                first += 1
            else:
                pending[first] = pending[first][step:]


def read_stored(descriptor: int, offset: int, block: memoryview, path: str) -> None:
    """As :func:`read_fully`, into one buffer; what the system says is translated."""
    try:
        read_fully(descriptor, offset, [block], path=path)
    except OSError as exc:
        raise translate(path, exc) from exc


@contextmanager
def noting_arrived(nbytes: int) -> Iterator[None]:
    """Let an ``OSError`` that ends a read know that so many bytes had come before: see :func:`arrived_before`."""
    try:
        yield
    except OSError as exc:
        vars(exc)["arrived_bytes"] = nbytes
        raise


def arrived_before(error: StoreError) -> int:
    """How many bytes had come before what ``error`` was made of; 0 where nobody said."""
    nbytes = getattr(error.__cause__, "arrived_bytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


def check_unchanged(path: str, offset: int, before: FileIdentity, now: FileIdentity) -> None:
    """Raise ``IntegrityError`` where the file is another one, or in another state, than when its header was read."""
    if now == before:
        return
    if (now.dev, now.ino) != (before.dev, before.ino):
        found, expected = "another file of that name", "the one whose header was read"
    elif now.size != before.size:
        found, expected = f"{now.size:,} bytes in the file", f"{before.size:,}"
    else:
        found, expected = "the file changed (its mtime or ctime moved)", "no change during the load"
    raise IntegrityError(path, offset, found, expected, _CHANGED)
