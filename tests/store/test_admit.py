"""Bringing files in: bytes that contradict what is known of them are read once more, and then refused."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from fastload._fetch.bring.bring import Bringing, Brought, bring
from fastload._fetch.pace import Pace
from fastload._store.admit.destination import CacheDestination
from fastload._store.admit.wrong import find_wrong
from fastload._store.folder_offer import FolderOffer, offer_stored
from fastload._store.layout import RepoLayout, repo_folder
from fastload._store.listing import list_files
from fastload._store.offer import OfferedFile
from fastload._store.root import Root
from fastload._store.wanted import Wish
from fastload._tier import PATH, shared_tier
from fastload._verify.digest import BLOCK_BYTES
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import ManifestFile
from fastload.errors import DeadlineError, FormatError, IntegrityError
from fastload.options import Options, decide_settings
from hub_clients import find, hub_with, tier_of
from hub_faults import Stall
from stored_models import COMMIT, model_files, write_cache, write_folder
from warming import has_block, large_shard
from warming_sources import Breaking

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.offer import Offer

REPO = "org/name"
LARGE = "model-00001-of-00002.safetensors"


def job(offer: Offer, root: Path, **more: object) -> Bringing:
    settings = decide_settings(None, {})
    usual = Bringing(
        offer=offer,
        destination=CacheDestination(RepoLayout(repo_folder(str(root), offer.repo))),
        root=str(root),
        evicts=False,
        wish=Wish(),
        settings=settings,
        check=lambda: None,
        progress=False,
        lease=None,
    )
    return replace(usual, **more)  # type: ignore[arg-type]


def stored_offer(root: Path) -> FolderOffer:
    stored = Root(str(root), shared_tier(str(root))).find_commit(REPO, COMMIT)
    assert stored is not None
    return offer_stored(stored)


def offer_folder(folder: Path) -> FolderOffer:
    files = list_files(str(folder))
    kind = EvidenceKind.ETAG
    return FolderOffer(tier=PATH, repo="plain", commit=None, evidence=kind, folder=str(folder), files=files)


def test_all_is_read_once(tmp_path: Path) -> None:
    files = model_files(shard_bytes=9 << 20)
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    read: list[int] = []
    brought = bring(job(stored_offer(tmp_path / "shared"), tmp_path / "local", came=read.append))
    assert sum(read) == brought.tally.done_bytes == sum(map(len, files.values()))
    assert brought.tally.refetched_files == []


def test_what_is_done_is_told_by_blocks_where_a_line_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait go by it: an extent at a time, it would stand still for minutes.

    The line is so slow here that a block comes when all before it have been told of.
    """
    write_folder(tmp_path / "plain", {"model.safetensors": large_shard(11 << 20, 0)})  # three blocks
    told, begun = [0], [0]

    def wait_told(pace: Pace, nbytes: int) -> float:
        until_s = time.monotonic() + 60
        while told[-1] < sum(begun) and time.monotonic() < until_s:
            time.sleep(0.01)
        begun.append(nbytes)
        return 0.0

    monkeypatch.setattr(Pace, "delay_s", wait_told)
    settings = decide_settings(Options(max_rate="20Mi"), {})
    made = job(offer_folder(tmp_path / "plain"), tmp_path / "local", settings=settings)
    bring(replace(made, progress=lambda done, _: told.append(done)))
    assert told[-1] > 11 << 20
    assert max(later - earlier for earlier, later in pairwise(told)) <= BLOCK_BYTES


def test_a_file_that_came_wrong_once_is_brought_again(tmp_path: Path, leaks_nothing: None) -> None:
    files = model_files(shard_bytes=9 << 20)
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    offer = Breaking(stored_offer(tmp_path / "shared"), LARGE, times=1)
    brought = bring(job(offer, tmp_path / "local"))
    assert brought.tally.refetched_files == [LARGE]
    check(brought, files)


def check(brought: Brought, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        with open(f"{brought.folder}/{path}", "rb") as file:
            assert file.read() == content


def test_a_file_that_comes_wrong_twice_is_refused_and_nothing_published(tmp_path: Path, leaks_nothing: None) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, model_files())
    offer = Breaking(stored_offer(tmp_path / "shared"), LARGE, times=2)
    with pytest.raises(IntegrityError, match=rf"shared/.*/snapshots/.*/{LARGE}'.*sha256.*twice.* --repair"):
        bring(job(offer, tmp_path / "local"))
    repo = tmp_path / "local/models--org--name"
    assert not list((repo / "snapshots").iterdir()) and not (repo / "refs").exists()
    assert not list((repo / ".fastload/staging").glob("*.part"))


def test_what_came_well_before_an_error_is_not_read_again(tmp_path: Path) -> None:
    files = model_files(shard_bytes=9 << 20)
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    offer = stored_offer(tmp_path / "shared")
    with pytest.raises(IntegrityError):
        bring(job(Breaking(offer, LARGE, times=2), tmp_path / "local"))
    read: list[int] = []
    brought = bring(job(offer, tmp_path / "local", came=read.append))
    assert sum(read) < sum(map(len, files.values()))
    check(brought, files)


def test_the_blocks_of_a_manifest_name_what_is_bad() -> None:
    good = ManifestFile("f", 3 * BLOCK_BYTES, "a" * 64, None, ("0" * 64, "1" * 64, "2" * 64))
    known = OfferedFile(path="f", size=good.size, sha256="a" * 64, blocks=good.blocks)
    assert find_wrong(known, good) is None
    wrong = find_wrong(known, replace(good, sha256="b" * 64, blocks=("0" * 64, "x" * 64, "y" * 64)))
    assert wrong is not None and (wrong.offset, wrong.found) == (BLOCK_BYTES, "other bytes in block 1, 2")
    by_name = find_wrong(replace(known, blocks=None), replace(good, sha256="b" * 64))
    assert by_name is not None and by_name.found == f"sha256 {'b' * 64}"
    assert find_wrong(OfferedFile(path="f", size=good.size), good) is None


def test_a_file_that_changes_while_it_is_brought_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "plain", model_files())
    offer = offer_folder(folder)
    (folder / LARGE).write_bytes((folder / LARGE).read_bytes()[::-1])
    with pytest.raises(IntegrityError, match="try again when that is over"):
        bring(job(offer, tmp_path / "local"))


def test_nothing_that_is_a_weight(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "plain", {"config.json": b"{}", "model.gguf": b"x"})
    offer = offer_folder(folder)
    with pytest.raises(FormatError, match=r"model\.gguf.*--include"):
        bring(job(offer, tmp_path / "local"))


def test_the_deadline_ends_it_and_what_was_brought_waits(tmp_path: Path, leaks_nothing: None) -> None:
    files = model_files(shard_bytes=32 << 20)
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    journals = tmp_path / "local/models--org--name/.fastload/journals"

    def check_time() -> None:
        if any(has_block(path) for path in journals.iterdir()):
            raise DeadlineError(0.5, "warming")

    settings = replace(decide_settings(None, {}), max_rate=8 << 20)  # 8 s: a look comes in time
    offer = stored_offer(tmp_path / "shared")
    with pytest.raises(DeadlineError):
        bring(job(offer, tmp_path / "local", settings=settings, check=check_time))
    read: list[int] = []
    here: list[int] = []
    brought = bring(job(offer, tmp_path / "local", came=read.append, was_here=here.append))
    assert 0 < sum(read) < brought.tally.done_bytes == sum(read) + sum(here)
    check(brought, files)


def test_what_a_slow_line_has_brought_is_staged_before_the_rest_of_its_extent(tmp_path: Path) -> None:
    """Else who is killed meanwhile fetches all of it again: 16 MiB on each of eight lines."""
    content = large_shard(15 << 20, 0)
    journals = tmp_path / "local/models--org--name/.fastload/journals"

    def check_time() -> None:
        if count_staged():
            raise DeadlineError(0.5, "warming")

    def count_staged() -> int:
        return sum(path.read_bytes().count(b"\n") - 1 for path in journals.iterdir())

    with hub_with({"model.safetensors": content}) as hub, tier_of(hub) as tier:
        hub.faults.add(Stall(after_bytes=6 << 20, seconds=20), path="*.safetensors", times=None)
        with pytest.raises(DeadlineError):
            bring(job(find(tier, REPO), tmp_path / "local", check=check_time))
    assert count_staged() == 1


def test_the_pace_is_kept_by_many_threads_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    pace = Pace(10_000_000)
    for _ in range(20):
        now_s += pace.delay_s(200_000)
    assert now_s == pytest.approx(1000.4)
    now_s += 60  # what nobody took meanwhile may not come all at once
    assert sum(pace.delay_s(200_000) > 0 for _ in range(20)) == 15
