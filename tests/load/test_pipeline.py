"""Workers that are interrupted while they are being started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import fastload
from models import MIB, save_large

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("at", range(4))
def test_interrupt_before_a_thread_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Joining a thread that was never started is an error of its own, which must not take the interrupt's place."""
    save_large(tmp_path, 16, 4 * MIB)
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        if len(started) == at:
            raise KeyboardInterrupt
        started.append(thread)
        start(thread)

    stream = fastload.stream(tmp_path, reader="buffered")
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert not any(thread.is_alive() for thread in started)
