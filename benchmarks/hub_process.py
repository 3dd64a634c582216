"""A hub on loopback in a process of its own, so that what it costs is nobody's whom it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPO = "bench/model"
"""The one that it has."""
TESTS = Path(__file__).parent.parent / "tests"
_HUB = """
import json, sys, hub_server
name, paths = sys.argv[1], json.loads(sys.argv[2])
files = {}
for file_name, path in paths.items():
    with open(path, "rb") as file:
        files[file_name] = file.read()
with hub_server.HubServer({name: hub_server.Repo(files)}, has_cdn=False) as hub:
    print(hub.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def serving(files: Mapping[str, Path]) -> Iterator[str]:
    """The URL of a hub that has ``files``, by their names there, in its memory.

    Mapped, they could not leave the page cache, and nobody's load would be cold.
    """
    paths = json.dumps({name: str(path) for name, path in files.items()})
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _HUB, REPO, paths], stdin=pipe, stdout=pipe, text=True, env=environment
    ) as hub:
        assert hub.stdout
        assert hub.stdin
        yield hub.stdout.readline().strip()
        hub.stdin.close()
