"""Reading whole files for their digests, told to stop in the midst of one: at once, and nothing is written."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from forked import start_fastload
from kernel_account import read_so_far
from stored_models import COMMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 64 << 30  # 64 GiB, none of it on the disk: half a minute to hash
PATIENCE_S = 60.0
SOON_S = 5.0  # on a busy machine; the rest of the file takes far longer
STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def _write_sparse(path: Path) -> None:
    path.parent.mkdir(parents=True)
    header = json.dumps({"x": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + SIZE)


def _verify(folder: Path) -> list[str]:
    return ["verify", _write_cache(folder)]


def _load(folder: Path) -> list[str]:
    """In order, before anything is handed out."""
    return ["load", _write_cache(folder), "--verify", "require"]


def _record(folder: Path) -> list[str]:
    _write_sparse(folder / "plain" / "model.safetensors")
    return ["verify", str(folder / "plain"), "--record"]


def _write_cache(folder: Path) -> str:
    repo = folder / "local" / "models--org--name"
    blob = repo / "blobs" / ("5" * 64)
    _write_sparse(blob)
    shard = repo / "snapshots" / COMMIT / "model.safetensors"
    shard.parent.mkdir(parents=True)
    shard.symlink_to(os.path.relpath(blob, shard.parent))
    return f"org/name@{COMMIT}"


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("stop", "code"), STOPS)
@pytest.mark.parametrize("words", [_verify, _load, _record])
def test_it_stops_at_once_and_leaves_nothing(
    tmp_path: Path, words: Callable[[Path], list[str]], stop: signal.Signals, code: int
) -> None:
    command = [*words(tmp_path), "--local", str(tmp_path / "local"), "--tiers", "local"]
    before = _listing(tmp_path)
    with start_fastload(command) as process:
        until_s = time.monotonic() + PATIENCE_S
        while read_so_far(process.pid) < 1 << 30:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.send_signal(stop)
        begin_s = time.monotonic()
        out, err = process.communicate(timeout=PATIENCE_S)
        took_s = time.monotonic() - begin_s
    assert (process.returncode, "Traceback" in err) == (code, False), (out, err)
    assert took_s < SOON_S
    assert _listing(tmp_path) == before
