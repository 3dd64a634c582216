"""Processes that cost little, with faults put between them and the system.

A worker imports once and forks for each piece of work: tens of milliseconds instead of a second, so that a sweep over
every system call is affordable. strace, attached before the work begins, injects what shall go wrong.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from warming import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TESTS = Path(__file__).parents[1]
_VERBS = ("warm", "load", "verify", "resolve", "inspect", "ls", "doctor")
_COMMAND = (
    "fastload.cli.entry",
    *(f"fastload.cli.{verb}" for verb in _VERBS),
    "fastload._fetch.warm.warm",
    "fastload._store.hub.tier",
    "huggingface_hub",
    "blake3",
    "forge",
)
TORCH = ("fastload._load.api", "fastload._load.stream.stream", "torch", "safetensors.torch", "numpy")
"""What a worker imports besides, whose work loads."""
_LATER = ("fastload._load.engine", "checked_load", "fastload.cli.pin")
"""What is imported lazily else, in hundreds of calls, where an error is one of the installation."""
_FOLDERS = ("../src", "", "faults", "load")


@dataclass(frozen=True)
class Done:
    """How a piece of work ended."""

    code: int
    """The exit code; negative: the signal."""
    out: str
    err: str

    @property
    def was_killed(self) -> bool:
        """By SIGKILL."""
        return self.code == -9

    @property
    def is_typed(self) -> bool:
        """It succeeded, or failed by an error of ours with an exit code of its own."""
        return (self.code == 0 or 10 <= self.code <= 23 or self.code == 2) and "Traceback" not in self.err


class Job:
    """A piece of work that runs."""

    def __init__(self, worker: Worker, pid: int, folder: Path) -> None:
        self.pid = pid
        self._worker, self._folder = worker, folder

    def kill(self, number: int) -> None:
        """Send it a signal; it is not reaped before :meth:`wait`, so that the number is its own."""
        os.kill(self.pid, number)

    @property
    def has_ended(self) -> bool:
        """It waits for nothing but to be waited for."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def wait(self) -> Done:
        """Its end. Asking for another job's end meanwhile waits for this one."""
        code = self._worker.ask({"wait": self.pid})
        # Not there, if it was killed before it could open them.
        paths = [self._folder / name for name in ("out", "err")]
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in paths]
        return Done(code, *texts)


class Worker:
    """A process that forks, from construction to :meth:`close`; a context manager.

    Args:
        modules: what it imports beforehand, besides what the command line needs.
        preload: a shared library that comes before the C library's functions.
    """

    def __init__(self, modules: Sequence[str] = (), preload: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self._count = 0
        paths = os.pathsep.join(str(_TESTS / name) for name in _FOLDERS)
        more = {"PYTHONPATH": paths} | ({"LD_PRELOAD": str(preload)} if preload else {})
        command = [sys.executable, str(_TESTS / "faults/forge.py"), *_COMMAND, *modules]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(**more))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._temporary.cleanup()

    def ask(self, question: object) -> int:
        """What it answers."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self,
        work: str,
        *arguments: object,
        environ: Mapping[str, str] | None = None,
        strace: Sequence[str] = (),
        leaves_nothing: bool = False,
    ) -> Job:
        """``module:function`` with these arguments, in a process of its own.

        Args:
            work: which function; what it returns is the exit code.
            arguments: JSON values.
            environ: variables to set.
            strace: its flags, such as an injection.
            leaves_nothing: success with threads or descriptors left is none.
        """
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        job = {
            "work": work,
            "arguments": arguments,
            "environ": dict(environ or {}),
            "strace": list(strace),
            "leaves_nothing": leaves_nothing,
            "out": str(folder / "out"),
            "err": str(folder / "err"),
        }
        return Job(self, self.ask({"start": job}), folder)

    def run(self, *words: object, environ: Mapping[str, str], strace: Sequence[str] = ()) -> Done:
        """``fastload`` with these words, to its end."""
        return self.start("forge:command", *map(str, words), environ=environ, strace=strace, leaves_nothing=True).wait()


@functools.cache
def shared_worker(*, torch: bool = False) -> Worker:
    """One for all tests of this process, from the first that asks: no piece of work changes what the next begins with.

    Args:
        torch: whether it has imported what loads need.
    """
    worker = Worker((*TORCH, *_LATER) if torch else ())
    atexit.register(worker.close)
    return worker
