"""A thread that the system does not grant: for want of memory, or by a limit of their number."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from fastload._thread import start_thread
from fastload.errors import UnsupportedError

_WITHOUT_ROOM_FOR_A_STACK = """
import resource, threading
from pathlib import Path
from fastload._thread import start_thread

def address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

threading.stack_size(64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes() + (16 << 20), resource.RLIM_INFINITY))
start_thread(threading.Thread(target=print))
"""


def test_no_memory_for_a_stack_is_a_matter_of_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOM_FOR_A_STACK], capture_output=True, text=True, check=False
    )
    assert "MemoryBudgetError: needs 67,1" in done.stderr
    assert "ulimit -v" in done.stderr


def test_a_limit_of_their_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UnsupportedError, match=r"no thread.*ulimit -u"):
        start_thread(threading.Thread(target=print))
