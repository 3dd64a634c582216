"""A folder, and a file, that answer nobody, as a dead mount does."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastload._thread import start_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

_CALLS = ("stat", "lstat", "statvfs", "listdir", "scandir", "open", "access")


class Hanging:
    """Where a tier hangs, of several that are asked at once; the others have answered before it is waited for.

    Else one whose thread is late on a machine that is busy would not have answered in time either.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._threads: set[threading.Thread] = set()
        self._released = threading.Event()
        patch.setattr("fastload._store.patience.start_thread", self._start)

    def hang(self) -> None:
        """Until :meth:`release`."""
        self._threads.add(threading.current_thread())
        self._released.wait()

    def release(self) -> None:
        """Let all go on."""
        self._released.set()

    def _start(self, thread: threading.Thread) -> None:
        start_thread(thread)
        while thread.is_alive() and thread not in self._threads:
            thread.join(0.01)


@contextmanager
def silent_file(path: Path) -> Iterator[None]:
    """While it lasts, whoever opens ``path`` hangs in the system call: a named pipe that nobody writes to."""
    os.mkfifo(path)
    try:
        yield
    finally:
        with suppress(OSError):  # nobody waits
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


@contextmanager
def dead_mount(monkeypatch: pytest.MonkeyPatch, point: str) -> Iterator[None]:
    """While it lasts, whoever touches something below ``point`` hangs in the system call."""
    released = threading.Event()

    def hanging(real: Any) -> Any:
        def call(target: Any = ".", *rest: Any, **more: Any) -> Any:
            if not isinstance(target, int) and os.fspath(target).startswith(point):
                released.wait()
            return real(target, *rest, **more)

        return call

    with monkeypatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, hanging(getattr(os, name)))
        try:
            yield
        finally:
            released.set()
