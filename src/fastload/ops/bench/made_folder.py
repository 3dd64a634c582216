"""A folder for the time of a measurement, which is gone afterwards however often Ctrl-C is pressed.

The first one ends the measurement, and the folder goes, which may be gigabytes. A second one would end that instead.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def made_folder(above: str | None = None, prefix: str | None = None) -> Iterator[str]:
    """A new folder below ``above``; what was asked for while it was removed happens after that."""
    made = tempfile.TemporaryDirectory(dir=above, prefix=prefix)
    try:
        yield made.name
    finally:
        with _ending_later():
            made.cleanup()


@contextmanager
def _ending_later() -> Iterator[None]:
    """Only the main thread can say what a signal does; in a host program's other ones that is left as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    found = {number: signal.getsignal(number) for number in _ENDING}
    held = {number: was for number, was in found.items() if was not in {None, signal.SIG_IGN}}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, was in held.items():
            signal.signal(number, was)
    if came:
        signal.raise_signal(came[0])
