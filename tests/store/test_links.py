"""Links of a tier: those that stay inside go on working, those that lead out are refused, and the message says why."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload._store.admit.area import StagingArea
from fastload._store.admit.journal import dump_head
from fastload.errors import ModelNotFoundError, StoreError
from stored_models import COMMIT, model_files, write_cache, write_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "org/name"
REPO = "models--org--name"


def options_of(mount: Path, tmp_path: Path) -> fastload.Options:
    return fastload.Options(local=str(tmp_path / "local"), shared=str(mount), tiers=("local", "shared"))


def load(model: str | Path, mount: Path, tmp_path: Path) -> int:
    return len(fastload.load(model, options=options_of(mount, tmp_path)))


def test_a_tier_may_be_a_link_itself(tmp_path: Path) -> None:
    write_cache(tmp_path / "disk", NAME, COMMIT, model_files())
    write_folder(tmp_path / "disk/plain", model_files())
    (tmp_path / "mount").symlink_to(tmp_path / "disk")
    assert load(NAME, tmp_path / "mount", tmp_path) == load("plain", tmp_path / "mount", tmp_path) == 2


def test_a_local_tier_that_is_a_link_is_written(tmp_path: Path) -> None:
    write_cache(tmp_path / "mount", NAME, COMMIT, model_files())
    (tmp_path / "disk").mkdir()
    (tmp_path / "local").symlink_to(tmp_path / "disk")
    snapshot = fastload.warm(NAME, options=options_of(tmp_path / "mount", tmp_path))
    assert snapshot.tier == "local" and (tmp_path / "disk" / REPO / "snapshots" / COMMIT / "config.json").exists()


@pytest.mark.parametrize("inside", ["", "refs", "refs/main", "blobs", f"snapshots/{COMMIT}"])
def test_links_that_stay_in_the_tier_lead_on(tmp_path: Path, inside: str) -> None:
    mount = tmp_path / "mount"
    write_cache(mount, NAME, COMMIT, model_files())
    moved, link = mount / ".moved" / REPO, mount / REPO / inside
    moved.parent.mkdir(parents=True)
    if inside.startswith("snapshots"):  # its own links are relative
        moved = link.with_name("d" * 40)
    link.rename(moved)
    link.symlink_to(os.path.relpath(moved, link.parent))
    assert load(NAME, mount, tmp_path) == 2


@pytest.mark.parametrize("link", ["plain", REPO, f"{REPO}/snapshots", f"{REPO}/snapshots/{COMMIT}", f"{REPO}/blobs"])
def test_a_path_that_a_user_gives_may_be_a_link(tmp_path: Path, link: str) -> None:
    write_cache(tmp_path / "disk", NAME, COMMIT, model_files())
    write_folder(tmp_path / "disk/plain", model_files())
    (tmp_path / "mine").symlink_to(tmp_path / "disk" / link)
    model = {"plain": "", REPO: f"snapshots/{COMMIT}", f"{REPO}/snapshots": COMMIT}.get(link, "")
    if not link.endswith("blobs"):
        assert load(tmp_path / "mine" / model, tmp_path / "nowhere", tmp_path) == 2


def test_a_repo_that_is_linked_on_purpose_says_what_to_do_and_that_helps(tmp_path: Path) -> None:
    mount, disk = tmp_path / "mount", tmp_path / "disk"
    write_cache(disk, NAME, COMMIT, model_files())
    mount.mkdir()
    (mount / REPO).symlink_to(disk / REPO)
    with pytest.raises(ModelNotFoundError, match=r"leads out of .* make the folder above it a tier too") as refusal:
        load(NAME, mount, tmp_path)
    assert str(disk / REPO) in str(refusal.value)
    both = fastload.Options(local=str(tmp_path / "local"), shared=(str(mount), str(disk)), tiers=("local", "shared"))
    assert len(fastload.load(NAME, options=both)) == 2
    assert load(mount / REPO / "snapshots" / COMMIT, mount, tmp_path) == 2


def test_the_next_tier_serves(tmp_path: Path) -> None:
    mount, good, out = tmp_path / "mount", tmp_path / "good", tmp_path / "out"
    write_folder(out, model_files(1))
    (mount / REPO / "snapshots").mkdir(parents=True)
    (mount / REPO / "snapshots" / COMMIT).symlink_to(out)
    write_cache(good, NAME, COMMIT, model_files())
    both = fastload.Options(local=str(tmp_path / "local"), shared=(str(mount), str(good)), tiers=("local", "shared"))
    assert fastload.load(f"{NAME}@{COMMIT}", options=both).report.tier == f"shared:{good}"


def test_what_leads_out_hides_no_other_model_of_the_tier(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cache(mount, NAME, COMMIT, model_files())
    (mount / "models--bad--one").symlink_to(tmp_path)
    (mount / "org").symlink_to(tmp_path)
    (tmp_path / "name").mkdir()
    assert load(NAME, mount, tmp_path) == 2
    listing = fastload.snapshots(options=options_of(mount, tmp_path))
    assert {each.repo for each in listing} == {NAME}
    assert any("leads out of" in reason for _, reason in listing.unavailable)


@pytest.mark.parametrize("where", [".locks", REPO, f"{REPO}/blobs", f"{REPO}/.fastload/staging"])
def test_nothing_is_brought_to_where_a_link_leads(tmp_path: Path, where: str) -> None:
    write_cache(tmp_path / "mount", NAME, COMMIT, model_files())
    link = tmp_path / "local" / where
    link.parent.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    link.symlink_to(tmp_path / "out")
    with pytest.raises(StoreError, match="leads out of"):
        fastload.warm(NAME, options=options_of(tmp_path / "mount", tmp_path))
    assert not os.listdir(tmp_path / "out")


@pytest.mark.parametrize("where", ["refs", "trees", ".no_exist", ".fastload/staging"])
def test_nothing_is_removed_where_a_link_leads(tmp_path: Path, where: str) -> None:
    options = options_of(tmp_path / "mount", tmp_path)
    snapshot = write_cache(tmp_path / "local", NAME, COMMIT, model_files())
    (tmp_path / "out" / COMMIT / "deep").mkdir(parents=True)
    (tmp_path / "out" / "main").write_text(COMMIT)
    link = tmp_path / "local" / REPO / where
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "out")
    with pytest.raises(StoreError, match="leads out of"):
        fastload.remove(f"{NAME}@{COMMIT}", options=options)
    assert (tmp_path / "out" / COMMIT / "deep").is_dir() and (tmp_path / "out" / "main").exists()
    assert snapshot.is_dir()


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["link", "hard-link"])
@pytest.mark.parametrize("verb", ["warm", "load"])
def test_a_link_that_was_planted_as_a_staged_file_overwrites_nothing(
    tmp_path: Path, plant: Callable[[str, str], None], verb: str
) -> None:
    """Whoever may write there can say that a writer died, and where its bytes lie."""
    files = model_files()
    name = "model-00001-of-00002.safetensors"
    write_cache(tmp_path / "mount", NAME, COMMIT, files)
    (tmp_path / "local" / REPO / "snapshots").mkdir(parents=True)
    area = StagingArea(str(tmp_path / "local" / REPO / ".fastload"))
    area.make()
    left = f"{hashlib.sha256(files[name]).hexdigest()}.{'0' * 16}"
    with open(area.journal(left), "wb") as journal:
        journal.write(dump_head(len(files[name]), os.fstat(journal.fileno()).st_dev))
    (tmp_path / "precious").write_bytes(b"precious")
    plant(str(tmp_path / "precious"), area.part(left))
    getattr(fastload, verb)(NAME, options=options_of(tmp_path / "mount", tmp_path))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    brought = tmp_path / "local" / REPO / "snapshots" / COMMIT / name
    assert brought.read_bytes() == files[name]
    assert not (brought.parent / os.readlink(brought)).is_symlink()
