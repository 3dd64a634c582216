"""Python processes that cost little: each is forked from one that has imported what they need.

They are processes like others, with their own streams, environment and folder, and Python ends them as it ends any; but
starting Python and importing all of it anew took most of the time of those that only ask what a command does. Not for
tests of how a process begins, of what it imports or of its memory.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SERVER = Path(__file__).with_name("fork_server.py")
_VERBS = ("warm", "load", "verify", "resolve", "inspect", "ls", "rm", "prune", "pin", "unpin", "doctor")
_COMMAND = (
    "fastload.cli.entry",
    *(f"fastload.cli.{verb}" for verb in _VERBS),
    "fastload._fetch.warm.warm",
    "fastload._store.hub.tier",
    "huggingface_hub.utils",
)
_TORCH = ("torch", "fastload._load.api", "fastload._load.engine", "fastload._load.stream.stream")
_READ_AT_THE_START = ("LD_", "LC_", "LANG", "PYTHON", "MALLOC_", "OMP_", "MKL_", "TORCH_")
"""Variables that begin so are Python's, a library's or the linker's: what is forked cannot have other ones."""


class Forked(subprocess.Popen[str]):
    """``python`` with the words ``-m module …`` or ``-c code …``; stdout and stderr are pipes.

    Args:
        words: what follows ``python``.
        env: all of its environment.
        cwd: its folder; ours, if there is none.
        torch: whether it has imported torch already.
    """

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], cwd: str | Path | None = None, *, torch: bool = False
    ) -> None:
        self._server = _server(torch=torch)
        self._start = {"words": list(words), "environ": dict(env), "folder": os.fspath(cwd or os.getcwd())}
        pipes = [os.pipe(), os.pipe()]
        self._theirs = [theirs for _, theirs in pipes]
        try:
            super().__init__([sys.executable, *words], text=True)
        finally:
            for theirs in self._theirs:
                os.close(theirs)
        self.stdout, self.stderr = (open(ours, encoding="utf-8") for ours, _ in pipes)  # noqa: SIM115

    def _execute_child(self, *_: object) -> None:
        self.pid = self._server.ask({"start": self._start}, self._theirs)
        self._end = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """See :class:`subprocess.Popen`."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """See :class:`subprocess.Popen`."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._server.ask({"wait": self.pid}))
            os.close(self._end)
        return self.returncode

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        return self.poll()


def can_be_forked(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment would begin as ours has."""
    names = [name for name in {*env, *os.environ} if name.startswith(_READ_AT_THE_START)]
    return all(env.get(name) == os.environ.get(name) for name in names)


def start_fastload(
    words: Sequence[object], env: Mapping[str, str] = os.environ, cwd: str | Path | None = None
) -> subprocess.Popen[str]:
    """``python -m fastload`` with these words; see :func:`start_python`."""
    typed = [str(word) for word in words]
    return start_python(["-m", "fastload", *typed], env, cwd, torch="load" in typed[:1])


def run_fastload(
    words: Sequence[object],
    env: Mapping[str, str] = os.environ,
    cwd: str | Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    return wait_for(start_fastload(words, env, cwd), timeout)


def start_python(
    words: Sequence[str], env: Mapping[str, str] = os.environ, cwd: str | Path | None = None, *, torch: bool = False
) -> subprocess.Popen[str]:
    """A process of these, forked if it can be; see :class:`Forked`."""
    if can_be_forked(env):
        return Forked(words, env, cwd, torch=torch)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], stdout=pipe, stderr=pipe, text=True, env=env, cwd=cwd)


def wait_for(process: subprocess.Popen[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """What a process said, and how it ended."""
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class _Server:
    def __init__(self, modules: Sequence[str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        command = [sys.executable, str(_SERVER), str(theirs.fileno()), *modules]
        null, pipe = subprocess.DEVNULL, subprocess.PIPE  # Python's streams are made for pipes, as a child's will be
        with theirs:
            self._process = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=pipe, pass_fds=[theirs.fileno()])

    def ask(self, question: object, descriptors: Sequence[int] = ()) -> int:
        """What it answers."""
        with self._lock:
            try:
                socket.send_fds(self._channel, [json.dumps(question).encode()], descriptors)
                return int(self._channel.recv(64))
            except (ConnectionError, ValueError):
                pytest.fail(f"the server has ended: {self._process.communicate()[1].decode()}")

    def close(self) -> None:
        """End it; whatever it has started goes on."""
        self._channel.close()
        self._process.communicate()


@functools.cache
def _server(*, torch: bool) -> _Server:
    """One for each process that runs tests, from the first time that it is needed to the end."""
    server = _Server((*_COMMAND, *_TORCH) if torch else _COMMAND)
    atexit.register(server.close)
    return server
