"""Memory that the kernel refuses: the limit that is to blame is named, and how much of it was left."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from fastload._address_space import map_private
from fastload.errors import MemoryBudgetError
resource.setrlimit(getattr(resource, sys.argv[1]), (256 << 20, resource.RLIM_INFINITY))
try:
    map_private(1 << 30)
except MemoryBudgetError as error:
    print(error.needed_bytes, error.available_bytes, error)
"""


@pytest.mark.parametrize(
    ("number", "name", "command"),
    [("RLIMIT_AS", "its address space", "ulimit -v"), ("RLIMIT_DATA", "its private memory", "ulimit -d")],
)
def test_the_limit_is_named(number: str, name: str, command: str) -> None:
    run = subprocess.run([sys.executable, "-c", _SCRIPT, number], capture_output=True, text=True, check=True)
    needed, available, said = run.stdout.split(" ", 2)
    assert int(needed) == 1 << 30
    assert 0 < int(available) < 256 << 20
    assert f"the limit of {name}, 268,435,456 bytes," in said
    assert f"Raise {command}," in said


_SLACK = """
import mmap, resource
from fastload._address_space import HUGE_PAGE_BYTES, map_anonymous
from fastload.errors import MemoryBudgetError
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize:"))
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
held = []
try:
    while True:
        held.append(mmap.mmap(-1, 1 << 20))
except OSError:
    for _ in range(3):
        held.pop().close()
try:
    map_anonymous(HUGE_PAGE_BYTES)
except MemoryBudgetError as error:
    print(error.needed_bytes, error.available_bytes)
"""


def test_what_is_needed_is_more_than_what_is_left() -> None:
    """To lie at a border of huge pages takes more than the bytes: with them alone it said that it would fit."""
    run = subprocess.run([sys.executable, "-c", _SLACK], capture_output=True, text=True, check=True)
    needed, available = map(int, run.stdout.split())
    assert available < needed == 4 << 20


_HIDDEN = """
import os, resource
from fastload._address_space import map_private
assert not os.path.exists("/proc/self")
resource.setrlimit(resource.RLIMIT_AS, (256 << 20, resource.RLIM_INFINITY))
try:
    map_private(1 << 30)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_proc_it_is_the_same_error() -> None:
    """It was the system's of a missing file, from which a reader made one of a model that is incomplete."""
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", sys.executable, "-c"]
    run = subprocess.run([*command, _HIDDEN], capture_output=True, text=True, check=False)
    if "mount:" in run.stderr or "unshare:" in run.stderr:
        pytest.skip("mounting takes more rights than these")
    assert run.stdout.startswith("MemoryBudgetError needs 1,073,741,824 bytes"), run
