"""What a verify that was killed leaves in a plain folder: nothing where that can be, else what goes a day later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import fastload

if TYPE_CHECKING:
    from pathlib import Path

    from proven_models import Model

KILLED = """
import os, signal, sys
import fastload
count, really_sync = int(sys.argv[2]), os.fsync
def sync(descriptor):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    really_sync(descriptor)
os.fsync = sync
fastload.verify(sys.argv[1], record=True)
"""


@pytest.mark.parametrize("synced", range(3))
def test_a_recording_that_is_killed_leaves_nothing_on_its_way(model: Model, synced: int) -> None:
    folder = model.recorded()
    (folder / "config.json").write_bytes(b'{"a": "new one"}')
    done = subprocess.run([sys.executable, "-c", KILLED, folder, str(synced)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(folder / ".fastload/staging") == []
    assert fastload.verify(folder, record=True).is_right


@pytest.mark.parametrize("how", ["record", "repair"])
def test_what_is_left_all_the_same_goes_a_day_later(model: Model, how: str) -> None:
    folder = model.recorded()
    staging = folder / ".fastload/staging"
    then = time.time() - 25 * 3600
    goes = [f"mended.{'0' * 16}", f"{'a' * 40}.json.{'1' * 16}"]
    stays = [f"mended.{'2' * 16}", f"{'a' * 40}.json.{'3' * 16}", "mine"]
    for name in (*goes, *stays):
        _write(staging / name, then if name in goes or name == "mine" else None)
    fastload.verify(folder)
    assert sorted(os.listdir(staging)) == sorted([*goes, *stays]), "it changes nothing"
    fastload.verify(folder, record=how == "record", repair=how == "repair")
    assert sorted(os.listdir(staging)) == sorted(stays)


def test_nothing_is_removed_behind_a_link_that_leads_out(model: Model, tmp_path: Path) -> None:
    folder = model.recorded()
    name = f"mended.{'0' * 16}"
    (tmp_path / "elsewhere").mkdir()
    _write(tmp_path / "elsewhere" / name, time.time() - 25 * 3600)
    (folder / ".fastload/staging").rmdir()
    (folder / ".fastload/staging").symlink_to(tmp_path / "elsewhere")
    fastload.verify(folder, repair=True)
    assert os.listdir(tmp_path / "elsewhere") == [name]


def _write(path: Path, mtime_s: float | None) -> None:
    path.write_bytes(b"on its way")
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))
