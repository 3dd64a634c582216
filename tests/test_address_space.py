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
