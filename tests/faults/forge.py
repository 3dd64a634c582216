"""The process behind :mod:`workers`: it imports once, and forks for every piece of work.

It reads one JSON object a line from stdin, ``{"start": …}`` or ``{"wait": pid}``, and answers each with one.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_SOMETHING = 98
"""The exit code of work that ended well, but left descriptors or threads."""
HUNG = 99
"""The exit code of work that was killed since it did not end."""
HANGS_S = 45.0
_ATTACH_S = 20.0
_MOST_DESCRIPTORS = 256
_GO = signal.SIGUSR1
_INTERRUPTED = 128 + signal.SIGINT
_tracers: dict[int, subprocess.Popen[bytes]] = {}


def command(*words: str) -> int:
    """``fastload`` with these words; its exit code."""
    from fastload.cli import main

    return main(words)


def list_folder(folder: str) -> int:
    """How many files a tier sees in ``folder``."""
    from fastload._store.listing import list_files

    return len(list_files(folder))


def _descriptors() -> int:
    """How many are open; asked by no call that a fault may be put into."""
    return sum(map(_is_open, range(_MOST_DESCRIPTORS)))


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _work(job: Mapping[str, Any], ready: int) -> int:
    """What the child does once it is let go; closes ``ready`` when there is nothing left to do before that."""
    for number, name in ((1, "out"), (2, "err")):
        opened = os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    for name, text in job["environ"].items():
        os.environ[name] = text
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module, _, function = job["work"].partition(":")
    target = getattr(importlib.import_module(module), function)
    try:
        os.close(ready)
        signal.sigwait({_GO})  # by no call that a fault may be put into
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_GO})
        before = _descriptors()
    except KeyboardInterrupt:  # before the work has begun, as while Python starts
        return _INTERRUPTED
    code = target(*job["arguments"]) or 0
    sys.stdout.flush()
    left = [thread.name for thread in threading.enumerate()[1:] if not thread.daemon]
    if job["leaves_nothing"] and not code and (left or _descriptors() > before):
        print(f"left {left} and {_descriptors() - before} descriptors", file=sys.stderr)  # noqa: T201
        return LEFT_SOMETHING
    return int(code)


def _child(job: Mapping[str, Any], ready: int) -> None:
    code = 97
    try:
        code = _work(job, ready)
    except BaseException:  # noqa: BLE001 - a traceback on stderr is what the test looks for
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _attach(pid: int, strace: list[str]) -> None:
    tracer = subprocess.Popen(["strace", "-f", "-qq", *strace, "-p", str(pid)])
    _tracers[pid] = tracer
    end_s = time.monotonic() + _ATTACH_S
    while f"TracerPid:\t{tracer.pid}\n" not in open(f"/proc/{pid}/status").read():  # noqa: SIM115
        if tracer.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"strace does not attach: {tracer.returncode}")
        time.sleep(0.002)


def _start(job: Mapping[str, Any]) -> int:
    waits, ready = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(waits)
        _child(job, ready)
    os.close(ready)
    os.read(waits, 1)  # to its end: what comes before the work is not what a fault is put into
    os.close(waits)
    if job["strace"]:
        _attach(pid, job["strace"])
    os.kill(pid, _GO)
    return pid


def _wait(pid: int) -> int:
    """The exit code, negative for a signal; once its trace is written."""
    descriptor = os.pidfd_open(pid)
    is_late = not select.select([descriptor], [], [], HANGS_S)[0]
    os.close(descriptor)
    if is_late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    code = HUNG if is_late else os.waitstatus_to_exitcode(status)
    tracer = _tracers.pop(pid, None)
    if tracer is not None:
        tracer.wait()
    return code


def main(modules: list[str]) -> None:
    """Serve until stdin ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {_GO})
    for name in modules:
        importlib.import_module(name)
    sys.dont_write_bytecode = True  # else what work imports writes files, among the calls that are counted and fail
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _start(asked["start"]) if "start" in asked else _wait(asked["wait"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
