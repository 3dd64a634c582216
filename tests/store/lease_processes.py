"""Starts the processes of the lease tests, also where flock lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastload._store.lease.holder import Holder, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.lease.lease import Lease

_HERE = Path(__file__).parent
_SHIM = r"""
#include <errno.h>
int flock(int fd, int operation) { (void)fd; (void)operation; ANSWER }
"""
LIES = {"no-op": "return 0;", "ENOLCK": "errno = ENOLCK; return -1;"}
"""How flock behaves on Lustre and GPFS without its mount option, and on NFS without lockd."""


def build_shim(folder: Path, lie: str) -> dict[str, str]:
    """An environment in which flock tells ``lie``."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc to build a flock that lies")
    source, library = folder / "flock.c", folder / "flock.so"
    source.write_text(_SHIM.replace("ANSWER", LIES[lie]))
    subprocess.run([gcc, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


class HolderProcess:
    """A process that holds a lease."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.first = self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """What it shall do."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        """What it answers."""
        self.tell(line)
        return self._read()


@contextmanager
def holder_process(
    folder: Path, *more: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[HolderProcess]:
    """A process that holds the lease ``x``; killed in the end."""
    command = [*prefix, sys.executable, str(_HERE / "lease_holder.py"), str(folder), "x", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield HolderProcess(process)
        finally:
            process.kill()


def run_crowd(
    folder: Path,
    count: int,
    mode: str,
    *,
    names: str = "x",
    dead_after_s: float = 60.0,
    env: dict[str, str] | None = None,
) -> Counter[str]:
    """What ``count`` processes that wanted one of the leases ``names`` saw.

    None of them is dead: one that a busy machine lets wait for seconds must not be taken for that.
    """
    script = str(_HERE / "lease_crowd.py")
    command = [sys.executable, script, str(folder), str(count), names, mode, str(dead_after_s)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert not run.returncode, run.stderr
    return Counter(run.stdout.splitlines())


def from_elsewhere(folder: Path, **changes: object) -> Holder:
    """A record that a process on another machine might have written."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = this_process("bringing org/name", str(folder))
    facts = {name: getattr(mine, name) for name in Holder.__slots__}
    return Holder(**{**facts, "boot_id": "another", "host": "far", "pid": 1, **changes})  # type: ignore[arg-type]


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list that holds the seconds it took, in the end."""
    begin, seconds = time.monotonic(), [0.0]
    try:
        yield seconds
    finally:
        seconds[0] = time.monotonic() - begin


def released(lease: Lease | None) -> bool:
    """True if it was a lease; it is one no longer."""
    if lease is None:
        return False
    lease.release()
    return True
