"""A folder that answers nobody, as a dead mount does."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

_CALLS = ("stat", "lstat", "statvfs", "listdir", "scandir", "open", "access")


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
