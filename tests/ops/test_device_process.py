"""What takes too long ends with all that it has started, and what it said until then is kept."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from device_process import LimitError, call

if TYPE_CHECKING:
    from pathlib import Path

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("begun", child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def is_alive(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


def assert_ends(pid: int) -> None:
    until_s = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_what_a_step_has_started_ends_with_it(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="took more than 2 s") as raised:
        call([sys.executable, "-c", _PARENT, "60"], 2, variables=os.environ, folder=tmp_path)
    word, pid = raised.value.output.split()
    assert word == "begun"
    assert_ends(int(pid))


def test_an_exit_code_and_what_was_said_come_back(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['ANSWER']); print('oh', file=sys.stderr); sys.exit(3)"
    run = call([sys.executable, "-c", code], 60, variables=os.environ | {"ANSWER": "42"}, folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (3, f"{tmp_path} 42\n", "oh\n")
