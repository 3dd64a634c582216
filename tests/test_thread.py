"""A thread that the system does not grant: for want of memory, or by a limit of their number."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

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
_WITHOUT_ROOM_FOR_ANYTHING_ELSE = """
import resource, sys, threading
from pathlib import Path
from fastload._thread import start_thread

STACK_BYTES = 1 << 20

def address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

threading.stack_size(STACK_BYTES)
limit = address_space_bytes() + STACK_BYTES + int(sys.argv[1])
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, most))
thread = threading.Thread(target=print)
try:
    start_thread(thread)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    assert not thread.is_alive()
    assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""


def test_no_memory_for_a_stack_is_a_matter_of_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOM_FOR_A_STACK], capture_output=True, text=True, check=False
    )
    assert "MemoryBudgetError: needs 67,1" in done.stderr
    assert "ulimit -v" in done.stderr


@pytest.mark.parametrize("room_bytes", [4 << 10, 12 << 10, 20 << 10])
def test_one_that_dies_before_it_begins_is_not_waited_for(room_bytes: int) -> None:
    """Its stack is there; what Python needs to call the first function is not."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOM_FOR_ANYTHING_ELSE, str(room_bytes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "MemoryBudgetError: needs 32,768" in done.stderr


def test_one_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it says that it runs, however long that takes on a machine that is busy."""
    begun = threading.Event()
    inner = threading.Thread._bootstrap_inner  # type: ignore[attr-defined] # where Python itself may be late

    def late(thread: threading.Thread) -> None:
        time.sleep(0.4)
        inner(thread)

    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", late)
    thread = threading.Thread(target=begun.set)
    start_thread(thread)
    assert thread.ident is not None
    thread.join()
    assert begun.is_set()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()


def test_a_limit_of_their_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UnsupportedError, match=r"no thread.*ulimit -u"):
        start_thread(threading.Thread(target=print))
