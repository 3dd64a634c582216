"""Ctrl-C, in processes of their own: within a second, and nothing is left."""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING

import pytest

from forked import start_python
from models import MIB, save_large
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from pathlib import Path

_BEFORE = """
import os, signal, sys, threading, time, torch, fastload
signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it is ignored, and children inherit that
def held():
    fds = len(os.listdir("/proc/self/fd"))
    return fds, sorted(t.name for t in threading.enumerate())
def settle():  # what hung ends later; how much later, a busy machine decides
    until_s = time.monotonic() + 60
    while held() != before and time.monotonic() < until_s:
        time.sleep(0.01)
fastload.load(sys.argv[1], tensors="layer.000.*")
before = held()
"""

_LOAD = """
# Storage that hangs, as a dead mount does: the system's own call, not ours.
real = os.preadv
def slow(*args):
    if threading.current_thread() is threading.main_thread():
        return real(*args)
    os.write(1, b"ready\\n")
    time.sleep(HANGS_S)
    return real(*args)
os.preadv = slow
if HANGS_S < 1:
    fastload._load.read.pipeline._JOIN_S = 60  # it does not hang, however busy the machine is
try:
    fastload.load(sys.argv[1], reader="buffered")
except KeyboardInterrupt:
    print("stopped", flush=True)
    if HANGS_S > 1:
        settle()
    print("same" if held() == before else f"{before} {held()}")
"""

_STREAM = """
try:
    for name, tensor in fastload.stream(sys.argv[1], options=fastload.Options(staging_bytes="8Mi")):
        os.write(1, b"ready\\n")
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped", flush=True)
    print("same" if held() == before else f"{before} {held()}")
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(_LOAD.replace("HANGS_S", "0.05"), id="slow storage"),
        pytest.param(_LOAD.replace("HANGS_S", "3"), id="hanging storage"),
        pytest.param(_STREAM, id="slow caller"),
    ],
)
def test_interrupt_stops_within_a_second_and_leaks_nothing(tmp_path: Path, script: str) -> None:
    save_large(tmp_path, 64, 8 * MIB)
    with start_python(["-c", textwrap.dedent(_BEFORE + script), str(tmp_path)], torch=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        with Stopwatch(process.pid) as watch:
            while (line := process.stdout.readline()) == "ready\n":
                pass
        assert line == "stopped\n"
        assert watch.seconds < 1
        assert process.stdout.readline() == "same\n"
        assert process.wait(10) == 0


_CLOSE = """
# A read that nobody waits for yet is under way when the stream is closed.
real = os.preadv
under_way, interrupted = threading.Event(), threading.Event()
def slow(descriptor, buffers, offset, *flags):
    if offset > 24 << 20 and threading.current_thread() is not threading.main_thread():
        under_way.set()
        interrupted.wait()
    return real(descriptor, buffers, offset, *flags)
os.preadv = slow
fastload._load.read.pipeline._JOIN_S = 60
def is_joining(frame):
    return frame is not None and (frame.f_code is threading.Thread.join.__code__ or is_joining(frame.f_back))
def interrupt_who_waits(thread):
    while not is_joining(sys._current_frames()[thread]):
        time.sleep(0.01)
    signal.pthread_kill(thread, signal.SIGINT)
stream = fastload.stream(sys.argv[1], reader=sys.argv[2], options=fastload.Options(staging_bytes="64Mi"))
next(stream)
under_way.wait()
interrupt = threading.Thread(target=interrupt_who_waits, args=[threading.get_ident()])
interrupt.start()
try:
    stream.close()
    print("closed before it was interrupted", flush=True)
except KeyboardInterrupt:
    interrupt.join()
    interrupted.set()
    settle()
    print("same" if held() == before else f"{before} {held()}")
    stream.close()
    print("reported" if stream.report.tensors else "none")
"""


@pytest.mark.parametrize("reader", ["buffered", "direct"])
def test_an_interrupt_while_a_stream_is_closed_leaks_nothing_either(tmp_path: Path, reader: str) -> None:
    """Nobody would close it again: descriptors stayed open for as long as the process."""
    save_large(tmp_path, 16, 8 * MIB)  # more than its window
    words = ["-c", textwrap.dedent(_BEFORE + _CLOSE), str(tmp_path), reader]
    with start_python(words, torch=True) as process:
        out, _ = process.communicate(timeout=30)
    assert out.splitlines() == ["same", "reported"]
