"""``transfer="hub"`` writes a file twice: there is room for both before the first byte comes, or none comes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from hub_faults import Refuse, Stall
from hub_server import HubServer, Repo
from warming import MIB, Tiers, eventually, large_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
SHARDS = {f"model-{n:05}-of-00004.safetensors": large_shard(8 * MIB, n) for n in range(1, 5)}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({REPO: Repo({**SHARDS, "config.json": b"{}"})}) as server:
        yield server


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Of 60 MiB."""
    at = tmp_path / "volume"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "none", at], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount here: {mounted.stderr}")
    yield at
    subprocess.run(["umount", at], check=True)


def tiers_on(volume: Path, hub: HubServer) -> Tiers:
    more = {"HF_ENDPOINT": hub.url, "FASTLOAD_MIN_FREE": "0", "HF_HOME": str(volume.parent / "home")}
    return Tiers(volume, tiers="local,hub", more=more)


def test_there_is_room_for_two_files_more_at_most(volume: Path, hub: HubServer) -> None:
    """32 MiB, and 16 of scratch: not all four at once, which would be 64."""
    tiers_on(volume, hub).warm(REPO, "--transfer", "hub")


@pytest.mark.parametrize("words", [(), ("--max-rate", "64Mi")])
def test_each_file_is_asked_for_once(tmp_path: Path, hub: HubServer, words: tuple[str, ...]) -> None:
    tiers_on(tmp_path, hub).warm(REPO, "--transfer", "hub", *words)
    assert hub.served_bytes("/cdn/") <= 1.05 * sum(map(len, SHARDS.values()))


def test_without_room_for_the_scratch_nothing_is_fetched(volume: Path, hub: HubServer) -> None:
    (volume / "other").write_bytes(bytes(20 * MIB))
    done = tiers_on(volume, hub).run("warm", REPO, "--transfer", "hub")
    assert done.returncode == 14 and "are missing" in done.stderr, done.stderr
    assert hub.served_bytes("/cdn/") == 0
    tiers_on(volume, hub).warm(REPO)


def test_of_two_that_do_not_fit_together_one_is_told_before_it_begins(volume: Path) -> None:
    """Of 60 MiB one takes 32 and 16 of scratch, the other 8 and 8: they would fit but for the scratch of the first."""
    small = {"model.safetensors": large_shard(8 * MIB, 9)}
    with HubServer({REPO: Repo(SHARDS), "org/small": Repo(small)}) as hub:
        hub.faults.add(Stall(MIB, 60.0), host="cdn", times=1)
        tiers = tiers_on(volume, hub)
        first = tiers.start("warm", REPO, "--transfer", "hub")
        eventually(lambda: bool(hub.asked("cdn")))
        done = tiers.run("warm", "org/small", "--transfer", "hub")
        assert done.returncode == 14 and "no room for 16," in done.stderr and "are missing" in done.stderr, done.stderr
        assert not hub.asked(path="org/small/resolve")
        first.terminate()
        first.communicate(timeout=20)
        tiers.warm("org/small", "--transfer", "hub")


def test_where_nothing_came_nothing_is_left(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.add(Refuse(403), path="*/resolve/*", times=None)
    tiers = tiers_on(tmp_path, hub)
    assert tiers.run("warm", REPO, "--transfer", "hub").returncode
    assert not tiers.repo(REPO).exists()
