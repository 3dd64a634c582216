"""Importing torch, which takes seconds, while signals come."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from fastload._collector import collector_paused
from fastload._store.refusal import system_refusals
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INSISTS_EVERY_S = 0.1
_BROKEN = "See that python -c 'import torch' works. As a rule its CUDA libraries are missing, or of another version"


class Leaving:
    """A handler after whose error the process ends, so that no half of an import needs to be spared."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error
        self._is_called = False

    def __call__(self, _number: int, _frame: FrameType | None) -> NoReturn:
        """Raise it."""
        self._is_called = True
        raise self._error

    def check(self) -> None:
        """Raise it once more, should somebody have swallowed it."""
        if self._is_called:
            raise self._error


@contextmanager
def importing_torch() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait for the import of torch; a second one does not, nor one that ends the process.

    In the midst of it an exception is swallowed in some places, and from all others leaves a torch that cannot be
    imported again in this process.

    Raises:
        UnsupportedError: there is no torch, or a broken one.
        StoreError: a module cannot be read, as where no descriptor is left.
    """
    with system_refusals(), collector_paused():  # a ninth of the time, for what is no garbage
        if threading.current_thread() is not threading.main_thread():  # only there do handlers run
            _import_torch()
            yield
            return
        with _holding(), _insisting():
            _import_torch()
            yield


def _import_torch() -> None:
    if find_spec("torch") is None:
        raise UnsupportedError("torch is not installed", "pip install 'torch>=2.4'")
    try:
        import torch  # noqa: F401, PLC0415
    except (ImportError, OSError, RuntimeError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # the system's, of any file; what ctypes says of a library that it cannot open has no number
        raise UnsupportedError(f"torch is installed, but cannot be imported: {exc}", _BROKEN) from exc


@contextmanager
def _holding() -> Iterator[None]:
    """The first of each signal that somebody handles is handled at the end."""
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if number in held:
            handlers[number](number, frame)
        held.append(number)

    found = {int(number): signal.getsignal(number) for number in _ENDING}
    handlers = {
        number: handler for number, handler in found.items() if callable(handler) and not isinstance(handler, Leaving)
    }
    for number in handlers:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in dict.fromkeys(held):
        handlers[number](number, None)


@contextmanager
def _insisting() -> Iterator[None]:
    """What :class:`Leaving` has raised is raised again and again until it gets through, as what it is."""
    leaving = [handler for handler in map(signal.getsignal, _ENDING) if isinstance(handler, Leaving)]
    if not leaving:
        yield
        return

    def insist(_number: int, _frame: FrameType | None) -> None:
        for handler in leaving:
            handler.check()

    handler = signal.signal(signal.SIGALRM, insist)
    timer = signal.setitimer(signal.ITIMER_REAL, _INSISTS_EVERY_S, _INSISTS_EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # a test runner's, for one: some seconds late
        insist(signal.SIGALRM, None)  # also where it has become another error: numpy takes it for a broken numpy
