"""What a table of the benchmark says of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_SAY = """
import sys
from fastload.ops.bench.machine import describe_machine
print(describe_machine(sys.argv[1])["storage"])
"""


@pytest.mark.parametrize("name", [b"a b", b"\xff\xfe"])
def test_the_file_system_is_that_of_the_folder_however_it_is_called(tmp_path: Path, name: bytes) -> None:
    """Of one whose name is no UTF-8 it was that of the mount above."""
    folder = os.fsdecode(bytes(tmp_path) + b"/" + name)
    mount = 'mkdir "$1" && mount -t tmpfs "$(printf "its\\377own")" "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", folder, sys.executable, _SAY]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount:" in run.stderr or "unshare:" in run.stderr:
        pytest.skip("mounting takes more rights than these")
    assert run.stdout == "tmpfs on its\\udcffown\n", run
