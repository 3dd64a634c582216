"""Folders for the time of a measurement, which are gone afterwards, though Ctrl-C is pressed again.

The first one ends the measurement, and the folders go, which may be gigabytes. A second one would end that instead: so
what comes while they are being removed waits until they are gone.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class MadeFolders:
    """Makes folders, and removes all of them at the end of its ``with``."""

    def __init__(self) -> None:
        self._signals = _Signals()
        self._made = ExitStack()

    def make(self, above: str | None = None, prefix: str | None = None) -> str:
        """The path of a new one below ``above``, or where temporary files go."""
        return self._made.enter_context(tempfile.TemporaryDirectory(dir=above, prefix=prefix))

    def __enter__(self) -> Self:
        self._signals.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.is_holding = True
        try:
            self._made.close()
        finally:
            self._signals.give_back()


class _Signals:
    """Handlers that pass all on to those that were there, but for a while hold it back.

    They are there from the beginning, since one after the other is set: whoever presses Ctrl-C in between meets one
    that does as before, old or new. In other threads than the main one, where nobody may set any, all stays as it is.
    """

    def __init__(self) -> None:
        self.is_holding = False
        self._came: list[int] = []
        self._before = {
            number: was for number in _ENDING if (was := signal.getsignal(number)) not in {None, signal.SIG_IGN}
        }

    def take(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._before:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        was = self._before[signal.Signals(number)]
        if self.is_holding:
            self._came.append(number)
        elif callable(was):
            was(number, frame)
        else:  # the system's own way, which ends the process
            signal.signal(number, was)
            signal.raise_signal(number)

    def give_back(self) -> None:
        """The handlers that were there are told all that came."""
        self.is_holding = False
        if threading.current_thread() is threading.main_thread():
            for ending, was in self._before.items():
                signal.signal(ending, was)
        with ExitStack() as telling:  # the first of them raises, and none is lost for that
            for number in self._came:
                telling.callback(signal.raise_signal, number)
