"""Runs a piece of work once for each step that it takes on the file system, and kills it right before that step.

``python kill_sweep.py WORK ROOT…``: in each ROOT ``i`` the work is killed by SIGKILL before its ``i``-th step, by an
audit hook (PEP 578), so that the code under test has no part in it. Prints how many died.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import fastload
from fastload._store.keep.evict import evict
from fastload._store.keep.reclaim import reclaim_leftovers
from fastload._store.keep.removal import remove_snapshot
from fastload._store.layout import RepoLayout, repo_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_STEPS = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir"})


@contextmanager
def copied(root: Path, count: int) -> Iterator[list[Path]]:
    """Copies of ``root``; in memory where that can be, since hundreds of removals sync thousands of times."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as above:
        roots = [Path(above) / str(number) for number in range(count)]
        for copy in roots:
            shutil.copytree(root, copy, symlinks=True)
        yield roots


def sweep(work: str, roots: Sequence[Path]) -> int:
    """Run :func:`main` in a process of its own; how many were killed."""
    command = [sys.executable, __file__, work, *map(str, roots)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    return int(ran.stdout)


def _remove(root: str, repo: str, commit: str) -> None:
    remove_snapshot(RepoLayout(repo_folder(root, repo)), commit)


def _warm(root: str, shared: str, model: str, glob: str) -> None:
    fastload.warm(model, include=glob, options=fastload.Options(local=root, shared=shared, tiers="local,shared"))


def _work(words: list[str]) -> Callable[[str], object]:
    if words[0] == "remove":
        return lambda root: _remove(root, words[1], words[2])
    if words[0] == "warm":
        return lambda root: _warm(root, *words[1:])
    if words[0] == "evict":
        return lambda root: evict(root, int(words[1]))
    return reclaim_leftovers


def main(words: list[str], roots: list[str]) -> int:
    """How many of the runs were killed; the others had fewer steps."""
    killed = 0
    about = words[2].partition("@")[2] if words[0] == "warm" else ""  # the rest is what one of a new commit does too
    for number, root in enumerate(roots):
        child = os.fork()
        if not child:
            left = [number]

            def count_down(event: str, paths: object, left: list[int] = left) -> None:
                if event in _STEPS and about in repr(paths):
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1

            sys.addaudithook(count_down)
            _work(words)(root)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and status:
            sys.exit(f"step {number} failed")
        killed += os.WIFSIGNALED(status)
    return killed


if __name__ == "__main__":
    print(main(sys.argv[1].split(), sys.argv[2:]))  # noqa: T201 - for the test that started it
