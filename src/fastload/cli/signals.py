"""Ctrl-C, SIGTERM and SIGHUP, from the command's first moment to its last.

They are held back while our own modules are imported: until then there is nobody who could say in order how it went,
Python's own handler leaves a traceback, and SIGTERM would be lost as pid 1, where the system drops what nobody handles.
This module is imported before all others, so it imports little.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._load.importing import Leaving

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """What comes meanwhile is handled at the end, or in :func:`signals_raised`."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def signals_raised(interrupt: Leaving, terminate: Leaving) -> Iterator[None]:
    """They are errors, those that were held too; at the end they are whoever's they were."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the host program's affair
        return
    # That a terminal was closed is no reason to leave anything lying about.
    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate, signal.SIGHUP: terminate}
    try:
        with signals_held(), _handled_by(handlers), _signals_let_in():
            yield
    except Exception:
        interrupt.check()  # a module that is imported meanwhile may take it for a failure of its own
        terminate.check()
        raise


@contextmanager
def _handled_by(handlers: dict[signal.Signals, Leaving]) -> Iterator[None]:
    found = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if found[number] is not signal.SIG_IGN:  # as nohup and shells say of what runs in the background
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in found.items():
            signal.signal(number, was)


@contextmanager
def _signals_let_in() -> Iterator[None]:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)  # raises what was held
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def let_signals_kill() -> None:
    """For the process's last moments: all is said, and what a handler in Python would add is a traceback."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN)  # forgets what is held, such as a second Ctrl-C
            signal.signal(number, signal.SIG_DFL)
