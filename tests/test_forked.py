"""What is forked is what would have been started: the tests of the commands rest on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forked import Forked, can_be_forked, run_fastload, start_python, wait_for

if TYPE_CHECKING:
    from pathlib import Path

_ENDS = (
    "import sys; print(sys.argv, sys.path[0], __name__); print('told', file=sys.stderr); sys.exit(7)",
    "import os; print(os.getcwd(), sorted(os.environ.items()))",
    "import os, sys; print(sorted(os.listdir('/proc/self/fd')), sys.stdin.read(), sys.stdout.seekable())",
    "import signal; print([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])",
    "import atexit, threading; atexit.register(print, 'at the end'); threading.Timer(0.1, print, ['later']).start()",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import sys; sys.exit('why')",
    "import os; from huggingface_hub import constants; print(constants.ENDPOINT, constants.HF_HUB_CACHE)",
)


@pytest.mark.parametrize("code", _ENDS)
def test_it_says_and_ends_as_one_that_was_started(tmp_path: Path, code: str) -> None:
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_CACHE": str(tmp_path), "ONLY": "here"}
    words = ["-c", code, "one", "two"]
    started = subprocess.run(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=tmp_path,
    )
    forked = wait_for(Forked(words, env, tmp_path))
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_the_command_is_the_same(tmp_path: Path) -> None:
    for words in (["--version"], ["inspect", "nowhere"], ["fly"], ["resolve", "./nowhere", "--json"]):
        command = [sys.executable, "-m", "fastload", *words]
        started = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        forked = run_fastload(words, cwd=tmp_path)
        assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_it_is_signalled_and_waited_for() -> None:
    with start_python(["-c", "print('ready', flush=True); import time; time.sleep(60)"]) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == process.poll() == -signal.SIGTERM


def test_what_the_linker_or_python_reads_at_the_start_is_not_forked() -> None:
    assert can_be_forked({**os.environ, "FASTLOAD_READER": "mmap"})
    for name in ("LD_PRELOAD", "PYTHONIOENCODING", "LC_ALL"):
        assert not can_be_forked({**os.environ, name: "other"})
