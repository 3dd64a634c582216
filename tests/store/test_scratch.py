"""What is promised to another program's files: room that nobody else counts on, while somebody lives who writes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastload._settings.values import Share
from fastload._store.keep.room import Limits, measure_room
from fastload._store.keep.scratch import Scratch, count_promised_bytes
from fastload._store.layout import RepoLayout, repo_folder

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
LIMITS = Limits(min_free=Share(), max_bytes=None)
DIE = """
import os, sys
from fastload._store.keep.scratch import Scratch
Scratch(sys.argv[1], 2).promise(1 << 20)
os._exit(0)
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "local")


@pytest.fixture
def staging(root: str) -> str:
    return RepoLayout(repo_folder(root, "org/name")).ours("staging")


def test_what_is_promised_and_not_written_yet_is_not_free(root: str, staging: str) -> None:
    os.makedirs(root)
    before = measure_room(root, 1, LIMITS)
    scratch = Scratch(staging, 2)
    scratch.promise(64 * MIB)
    promised = measure_room(root, 1, LIMITS)
    assert promised.free_bytes <= before.free_bytes - 63 * MIB
    assert promised.kept_bytes >= before.kept_bytes + 64 * MIB
    os.makedirs(scratch.files)
    with open(os.path.join(scratch.files, "model.safetensors"), "wb") as file:
        file.write(os.urandom(8 * MIB))
    assert 55 * MIB <= count_promised_bytes([staging]) <= 56 * MIB
    scratch.close()
    assert measure_room(root, 1, LIMITS).kept_bytes == before.kept_bytes
    assert not os.listdir(staging)


def test_the_dead_promise_nothing(staging: str) -> None:
    subprocess.run([sys.executable, "-c", DIE, staging], check=True)
    assert len(os.listdir(staging)) == 1
    assert count_promised_bytes([staging]) == 0


def test_who_writes_more_than_was_promised_takes_nothing_off(staging: str) -> None:
    scratch = Scratch(staging, 1)
    scratch.promise(MIB)
    os.makedirs(scratch.files)
    with open(os.path.join(scratch.files, "more"), "wb") as file:
        file.write(os.urandom(2 * MIB))
    assert count_promised_bytes([staging, staging + "-gone"]) == 0
    scratch.close()
