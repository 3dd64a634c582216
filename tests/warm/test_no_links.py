"""A target that has no symbolic links: said before a byte moves, and ``--plain`` is the way out."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from stored_models import COMMIT, model_files, write_cache
from warming import FASTLOAD, MIB, Tiers, content, list_there

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"
FILES = model_files(shard_bytes=9 * MIB)
INJECT = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=symlink,symlinkat:error=EPERM"]

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, FILES)
    return made


def warm_without_links(tiers: Tiers, *words: object) -> subprocess.CompletedProcess[str]:
    command = [*INJECT, *FASTLOAD, "warm", REPO, *map(str, words)]
    return subprocess.run(command, env=tiers.environment, check=False, capture_output=True, text=True, timeout=120)


def test_the_layout_of_the_cache_is_refused_before_a_byte_moves(tiers: Tiers) -> None:
    done = warm_without_links(tiers)
    assert (done.returncode, done.stdout) == (20, "")
    assert "symbolic link" in done.stderr and "--plain DIR" in done.stderr
    left = [path for path in tiers.local.rglob("*") if path.is_file() and path.stat().st_size > MIB]
    assert left == list_there(tiers.repo(REPO)) == []


def test_real_files_are_brought(tiers: Tiers, tmp_path: Path) -> None:
    done = warm_without_links(tiers, "--plain", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "plain") == FILES
