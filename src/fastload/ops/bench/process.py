"""A measurement in a process of its own, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload._settings.environment import child_environment
from fastload.ops.bench.checkpoint import GIB
from fastload.ops.bench.contestants import BOUNDS, MAPPING
from fastload.ops.bench.free_memory import make_free_memory
from fastload.ops.bench.measure import Sample
from fastload.ops.bench.page_cache import count_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastload.ops.bench.measure import Job

_STAGING_BYTES = GIB // 2
_READY = "ready\n"


class LoadError(RuntimeError):
    """A contestant did not deliver."""


def run_job(
    job: Job,
    prepare: Callable[[Sequence[str]], object],
    *,
    timeout_s: float | None,
    variables: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Start the job's process, and bring the page cache into its state whenever it is ready to load.

    Args:
        job: what to load, and how often.
        prepare: is given the paths before each load.
        timeout_s: for all of it.
        variables: the environment, of which it gets all but tokens; None: this one.

    Raises:
        LoadError: it failed, or took too long.
    """

    def get_ready() -> None:
        prepare(job.trial.files.paths)
        make_free_memory(_STAGING_BYTES + count_wanted(job))

    command = [sys.executable, "-m", "fastload.ops.bench.measure", job.to_json()]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=child_environment(variables), process_group=0
    ) as child:
        limit = threading.Timer(timeout_s or threading.TIMEOUT_MAX, _end, [child])
        limit.daemon = True
        limit.start()
        complaint: list[str] = []
        listener = threading.Thread(target=lambda: complaint.extend(child.stderr or ()), daemon=True)
        listener.start()  # a child that complains at length must not wait for somebody to read it
        try:
            answer = _converse(child, get_ready)
            child.wait()
            is_late = not limit.is_alive()
        finally:
            limit.cancel()
            _end(child)  # where this process has failed; one that has ended does not feel it
            listener.join()
    if is_late:
        raise LoadError(f"took more than {timeout_s:.0f} s")
    if child.returncode:
        raise LoadError(([line.strip() for line in complaint if line.strip()] or [f"exit code {child.returncode}"])[-1])
    return [Sample(**facts) for facts in json.loads(answer)]


def _end(child: subprocess.Popen[str]) -> None:
    """And all that it has started: that would hold its pipes, and take part in what is measured next."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def count_wanted(job: Job) -> int:
    """Host memory for the tensors, and once more the same, because a cold load may fill the page cache.

    Who maps takes none but that.

    Raises:
        LoadError: the files cannot be looked at.
    """
    if job.trial.device != "cpu" or job.contestant in BOUNDS:
        return 0
    try:
        files = job.trial.files
        return count_missing(files.paths) if job.contestant in MAPPING else 2 * files.nbytes
    except OSError as exc:
        raise LoadError(str(exc)) from exc


def _converse(child: subprocess.Popen[str], get_ready: Callable[[], None]) -> str:
    """Let it load whenever it says that it is ready; its last line is what it found."""
    if child.stdout is None or child.stdin is None:
        raise LoadError("no pipes to its process")
    line = ""
    for line in child.stdout:
        if line != _READY:
            break
        get_ready()
        try:
            child.stdin.write("go\n")
            child.stdin.flush()
        except BrokenPipeError:  # it is gone; why, it says elsewhere
            with suppress(BrokenPipeError):  # tries once more to tell it, and would so when the process is left
                child.stdin.close()
            break
    return line
