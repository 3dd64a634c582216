"""The clock of the tests: it goes while something could run, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stopwatch import Stopwatch

_WHILE_IT_STANDS = """
import sys, time
from stopwatch import Stopwatch
with Stopwatch() as watch:
    begin_s = time.monotonic()
    print("ready", flush=True)
    sys.stdin.readline()
    whole_s = time.monotonic() - begin_s
print(whole_s, watch.seconds)
"""


def test_it_counts_what_is_slept() -> None:
    begin_s = time.monotonic()
    with Stopwatch() as watch:
        time.sleep(0.5)
    assert 0 < watch.seconds <= time.monotonic() - begin_s


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count it")
def test_it_does_not_count_what_a_process_waits_for_a_cpu() -> None:
    """Two that never rest share one: each of them waits for half of the time."""
    cpu = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, [{cpu}]); print(flush=True)\nwhile True: pass"
    command = [sys.executable, "-c", busy]
    with subprocess.Popen(command, stdout=-1) as one, subprocess.Popen(command, stdout=-1) as other:
        try:
            assert one.stdout and other.stdout
            assert one.stdout.readline() == other.stdout.readline() == b"\n"
            with Stopwatch() as all_of_it, Stopwatch(one.pid) as of_one:
                time.sleep(2.0)
        finally:
            one.kill()
            other.kill()
    assert of_one.seconds < 0.8 * all_of_it.seconds


def test_it_does_not_count_what_its_process_was_stopped() -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", _WHILE_IT_STANDS]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n", timeout=60)
    whole_s, counted_s = map(float, out.split())
    assert whole_s >= 1.0
    assert counted_s <= whole_s - 0.9
