"""A folder, and a file, that answer nobody, as a dead mount does."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

_CALLS = ("stat", "lstat", "statvfs", "listdir", "scandir", "open", "access")


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
