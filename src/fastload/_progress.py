"""Telling a person how far a load is: a bar on a terminal, a line now and then in a log, or a callback."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from tqdm import tqdm

from fastload.errors import UsageError

Callback = Callable[[int, int], None]
"""Called with the bytes done and the bytes in total."""

Wish = bool | Callback | None
"""What ``progress=`` takes."""

_LINE_EVERY_S = 10.0
_USUAL_SIZE = 80, 24


class Progress(Protocol):
    """Is told the bytes done whenever there are more of them."""

    def update(self, done_bytes: int) -> None:
        """So many bytes are done by now."""

    def close(self) -> None:
        """The load is over, well or not."""


class Silent:
    """Nobody wants to know."""

    def update(self, done_bytes: int) -> None:
        """See :class:`Progress`."""

    def close(self) -> None:
        """See :class:`Progress`."""


class Calling:
    """A caller's function. What it raises ends the load."""

    def __init__(self, callback: Callback, total_bytes: int) -> None:
        self._callback = callback
        self._total_bytes = total_bytes

    def update(self, done_bytes: int) -> None:
        """See :class:`Progress`."""
        self._callback(done_bytes, self._total_bytes)

    def close(self) -> None:
        """See :class:`Progress`."""


class _Unwatched(tqdm):  # type: ignore[type-arg] # which it does not take at run time
    """Without the thread that tqdm starts to look after bars that are not updated, and that it never ends."""

    monitor_interval = 0


class Bar:
    """For a terminal."""

    def __init__(self, total_bytes: int, file: TextIO) -> None:
        columns, rows = _find_size(file)
        self._bar = _Unwatched(
            total=total_bytes,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            file=file,
            leave=False,
            ncols=columns,
            nrows=rows,
        )

    def update(self, done_bytes: int) -> None:
        """See :class:`Progress`."""
        self._bar.update(done_bytes - self._bar.n)

    def close(self) -> None:
        """See :class:`Progress`."""
        self._bar.close()


def _find_size(file: TextIO) -> tuple[int, int] | tuple[None, None]:
    """Columns and rows, or None: tqdm asks the terminal itself.

    One that nobody has given a size says 0 and 0, and tqdm shows nothing in that.
    """
    try:
        is_known = all(os.get_terminal_size(file.fileno()))
    except (OSError, ValueError):  # it has no descriptor
        is_known = True
    return (None, None) if is_known else _USUAL_SIZE


class Lines:
    """For a log: one plain ASCII line every ten seconds."""

    def __init__(self, total_bytes: int, file: TextIO) -> None:
        self._total_bytes = total_bytes
        self._file = file
        self._begin_s = self._told_s = time.monotonic()

    def update(self, done_bytes: int) -> None:
        """See :class:`Progress`."""
        now_s = time.monotonic()
        if now_s - self._told_s < _LINE_EVERY_S:
            return
        self._told_s = now_s
        rate = done_bytes / (now_s - self._begin_s) / 1e9
        share = done_bytes / self._total_bytes if self._total_bytes else 1.0
        done, total = done_bytes / (1 << 30), self._total_bytes / (1 << 30)
        self._file.write(f"fastload: {done:.1f} of {total:.1f} GiB ({share:.0%}), {rate:.2f} GB/s\n")
        self._file.flush()

    def close(self) -> None:
        """See :class:`Progress`."""


def checked(wanted: Wish) -> Wish:
    """``wanted``, as a caller gave it.

    Raises:
        UsageError: ``progress=`` does not take it.
    """
    if wanted is None or isinstance(wanted, bool) or callable(wanted):
        return wanted
    raise UsageError(f"progress= got {type(wanted).__name__}", "Give True, False or a callable (done, total)")


def choose_progress(wanted: Wish, total_bytes: int) -> Progress:
    """What ``progress=`` means: None is a bar on a terminal and silence elsewhere; True is lines elsewhere."""
    if wanted is not None and not isinstance(wanted, bool):
        return Calling(wanted, total_bytes)
    stream = sys.stderr
    is_terminal = stream is not None and stream.isatty()  # pythonw and some daemons have no stderr
    if wanted is False or stream is None or (wanted is None and not is_terminal):
        return Silent()
    return Bar(total_bytes, stream) if is_terminal else Lines(total_bytes, stream)
