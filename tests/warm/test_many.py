"""Many processes warm one model at once: one transfer, and everybody has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fastload._store.lease.holder import parse_holder
from hub_server import HubServer, Repo
from stopwatch import Stopwatch
from stored_models import COMMIT, write_cache
from warming import MIB, Tiers, check_cache, eventually, large_shard, wait_told

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"
SHIM = "int flock(int fd, int operation) { (void)fd; (void)operation; return 0; }\n"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {"model.safetensors": large_shard(40 * MIB, 0), "config.json": b"{}"}


@pytest.fixture(scope="module")
def no_flock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes every lock granted, as on some cluster file systems."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "flock.c").write_text(SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "flock.so", folder / "flock.c"], check=True)
    return str(folder / "flock.so")


@pytest.mark.slow
def test_thirty_two_make_one_transfer(tmp_path: Path, files: dict[str, bytes]) -> None:
    with HubServer({REPO: Repo(files)}) as hub:
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
        running = [tiers.start("warm", REPO, "--max-rate", "10Mi") for _ in range(32)]
        ended = [(process.communicate(timeout=100), process.returncode) for process in running]
        served = hub.served_bytes("/resolve/") + hub.served_bytes("/cdn/")
    assert {code for _, code in ended} == {0}, [err for (_, err), code in ended if code]
    assert len({out for (out, _), _ in ended}) == 1
    assert served <= 1.1 * sum(map(len, files.values()))
    told = [err for (_, err), _ in ended if "(warming org/name" in err]  # or for who writes the ref, for a moment
    assert told and all(re.search(r"waiting for pid \d+ on \S+ \(warming org/name; [\d,]+", err) for err in told)
    assert check_cache(tiers.local, files) == 1
    assert tiers.staged(REPO) == []


def read_pid(tiers: Tiers) -> int:
    """Who brings the model, by the lease; 0 where nobody does at the moment."""
    try:
        record = (tiers.local / ".locks/fastload/org--name.lease").read_bytes()
    except FileNotFoundError:
        return 0
    return parse_holder(record, path="org--name.lease").pid


@pytest.mark.parametrize("has_locks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_where_the_holder_is_killed_another_goes_on(
    tmp_path: Path, files: dict[str, bytes], request: pytest.FixtureRequest, *, has_locks: bool
) -> None:
    """A lock that is free shows it at once; without locks, the silence."""
    more = {} if has_locks else {"LD_PRELOAD": request.getfixturevalue("no_flock")}
    tiers = Tiers(tmp_path, more=more)
    write_cache(tiers.shared, REPO, COMMIT, files)
    holder = tiers.start("warm", REPO, "--max-rate", "1Mi")
    tiers.wait_staged(REPO)
    waiters = [tiers.start("warm", REPO, "--max-rate", "20Mi") for _ in range(3)]
    for waiter in waiters:
        wait_told(waiter, "waiting for pid")
    holder.kill()
    with Stopwatch() as watch:
        eventually(lambda: read_pid(tiers) in {waiter.pid for waiter in waiters})
    assert watch.seconds <= 10.0, "as promised"
    holder.communicate()
    ended = [waiter.communicate(timeout=60) for waiter in waiters]
    assert [waiter.returncode for waiter in waiters] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert check_cache(tiers.local, files) == 1
    assert tiers.staged(REPO) == []


@pytest.mark.slow
def test_where_locks_lie_nothing_is_corrupted(tmp_path: Path, files: dict[str, bytes], no_flock: str) -> None:
    tiers = Tiers(tmp_path, more={"LD_PRELOAD": no_flock})
    write_cache(tiers.shared, REPO, COMMIT, files)
    killed = tiers.start("warm", REPO, "--max-rate", "16Mi")
    tiers.wait_staged(REPO)
    killed.kill()
    killed.communicate()
    running = [tiers.start("warm", REPO, "--max-rate", "40Mi") for _ in range(6)]
    ended = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert {code for _, code in ended} == {0}, [err for (_, err), code in ended if code]
    assert check_cache(tiers.local, files) == 1
    assert tiers.staged(REPO) == []


def test_without_any_lease_two_bring_it_side_by_side(tmp_path: Path, files: dict[str, bytes], no_flock: str) -> None:
    """As two hosts do whose leases both stand: each into files of its own."""
    tiers = Tiers(tmp_path, more={"LD_PRELOAD": no_flock})
    write_cache(tiers.shared, REPO, COMMIT, files)
    running = []
    locks = tiers.local / ".locks/fastload"
    for _ in range(3):
        running.append(tiers.start("warm", REPO, "--max-rate", "16Mi"))
        eventually(lambda: any(locks.glob("org--name*.lease")))
        for record in locks.glob("org--name*"):
            record.unlink(missing_ok=True)
    ended = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert {code for _, code in ended} == {0}, [err for (_, err), code in ended if code]
    assert check_cache(tiers.local, files) == 1
    assert not [name for name in tiers.staged(REPO) if name.startswith("journals/")]
    assert os.listdir(tiers.repo(REPO) / "blobs")
