"""How many CPUs there are, by the files of a pretended machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastload._cpus import Cpus, count_cpus
from stored_models import write_folder

if TYPE_CHECKING:
    from pathlib import Path

UNIFIED = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


@pytest.fixture(autouse=True)
def sixty_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs that this process may run on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def _count(root: Path, membership: str, files: dict[str, str]) -> Cpus:
    texts = {"proc/self/cgroup": membership, **files}
    write_folder(root, {name: text.encode() for name, text in texts.items()})
    return count_cpus(root=str(root))


@pytest.mark.parametrize(
    ("text", "quota", "usable"),
    [
        ("200000 100000", 2.0, 2),
        ("250000 100000", 2.5, 3),
        ("10000 100000", 0.1, 1),
        ("max 100000", None, 64),
        ("6400000 100000", None, 64),
        ("", None, 64),
        ("200000", None, 64),
        ("200000 0", None, 64),
    ],
)
def test_a_quota_bounds_them(tmp_path: Path, text: str, quota: float | None, usable: int) -> None:
    cpus = _count(tmp_path, "0::/\n", {f"{UNIFIED}/cpu.max": f"{text}\n"})
    assert (cpus.allowed, cpus.quota, cpus.usable) == (64, quota, usable)
    assert bool(cpus.limit) == (quota is not None)


def test_the_tightest_of_those_above_counts(tmp_path: Path) -> None:
    files = {f"{UNIFIED}/pod/main/cpu.max": "800000 100000\n", f"{UNIFIED}/pod/cpu.max": "400000 100000\n"}
    cpus = _count(tmp_path, "0::/pod/main\n", files)
    assert (cpus.quota, cpus.limit) == (4.0, f"the CPU quota of cgroup {tmp_path}/{UNIFIED}/pod")


@pytest.mark.parametrize(("quota_us", "usable"), [("150000", 2), ("-1", 64)])
def test_of_version_1_the_controller_of_cpus_counts(tmp_path: Path, quota_us: str, usable: int) -> None:
    files = {f"{V1}/c1/cpu.cfs_quota_us": f"{quota_us}\n", f"{V1}/c1/cpu.cfs_period_us": "100000\n"}
    assert _count(tmp_path, "9:memory:/x\n4:cpu,cpuacct:/c1\n3:cpuset:/y\n", files).usable == usable


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert count_cpus(root=str(tmp_path)) == Cpus(64)


_WITHOUT_CODECS = """
import encodings
from fastload._cpus import count_cpus
encodings.__path__.clear()
assert count_cpus().usable >= 1
"""


def test_no_codec_is_imported_to_read_what_the_kernel_says() -> None:
    """A disk that fails by then has no codec to give: "unknown encoding: ascii" left a ``warm``."""
    subprocess.run([sys.executable, "-c", _WITHOUT_CODECS], check=True)
