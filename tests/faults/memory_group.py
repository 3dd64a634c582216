"""A memory cgroup of one's own, of version 2 or 1, below the one this process is in."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of version 2, of version 1."""


@dataclass(frozen=True)
class MemoryGroup:
    """What it costs to hold more than its limit is death."""

    folder: Path

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A command in the group, all of it: from before its first instruction."""
        enter = f'echo $$ > {self.folder}/cgroup.procs && exec "$@"'
        words = ["sh", "-c", enter, "sh", *command]
        return subprocess.run(words, env=dict(environ), capture_output=True, text=True, check=False, timeout=600)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group that is limited to so many bytes, page cache included.

    Raises:
        OSError: there can be none here.
    """
    folder = _own_folder() / f"fastload-{os.getpid()}"
    folder.mkdir()
    try:
        limit = next((folder / name for name in _LIMITS if (folder / name).exists()), None)
        if limit is None:
            raise OSError(f"the memory controller is not given to groups below {folder.parent}")
        limit.write_text(str(limit_bytes))
        yield MemoryGroup(folder)
    finally:
        folder.rmdir()


def why_none() -> str | None:
    """Why there can be no such group here."""
    try:
        with memory_group(1 << 30) as group:
            done = group.run(["true"], os.environ)
    except OSError as error:
        return f"no memory cgroup of one's own: {error}"
    return f"no process may enter a memory cgroup: {done.stderr}" if done.returncode else None


def _own_folder() -> Path:
    found = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for name, root in (("memory", "/sys/fs/cgroup/memory"), ("", "/sys/fs/cgroup")):
        if name in found:
            return Path(root + found[name])
    raise OSError("this process is in no memory cgroup")
