"""Listing all tiers, and removing, pruning and pinning on the local one: the functions, and the verbs over them."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from caches import BLOB_BYTES, Cache
from fastload._fetch.keep import facts
from fastload._fetch.keep.snapshots import pin, prune, remove, snapshots, unpin
from fastload._store.keep.pin import is_pinned
from fastload._store.layout import lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.lock import hold_shared, open_lock
from fastload._store.lease.wait import try_hold
from fastload._store.root import Root
from fastload._tier import LOCAL
from fastload.cli import ls, rm
from fastload.cli import pin as pin_verb
from fastload.cli import prune as prune_verb
from fastload.cli import unpin as unpin_verb
from fastload.cli.several import PartialError
from fastload.errors import DeadlineError, ModelNotFoundError, StoreError, UsageError
from fastload.options import Options
from hanging import Hanging, dead_mount
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty local tier, and a folder to work in that has none of the names."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Cache(tmp_path / "hub")


@pytest.fixture
def options(cache: Cache) -> Options:
    """The local tier alone."""
    return Options(local=str(cache.root))


def _run(verb: ModuleType, *words: str) -> None:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true", dest="as_json")
    verb.run(parser.parse_args(words))


def test_every_snapshot_of_every_tier_is_listed(cache: Cache, tmp_path: Path) -> None:
    mount = Cache(tmp_path / "mount")
    ours = cache.add("org/a", 1, {"config.json": 1, "w": 2})
    theirs = cache.add("org/b", 2, {"w": 3}, source=None, ref=None)
    shared = mount.add("org/a", 1, {"config.json": 1, "w": 2}, ref="v1")
    plain = mount.root / "folder"
    plain.mkdir()
    (plain / "model.safetensors").write_bytes(pack({"x": ("U8", [1], b"1")}))
    pin(f"org/b@{theirs}", options=Options(local=str(cache.root)))
    listing = snapshots(options=Options(local=str(cache.root), shared=str(mount.root)))
    assert listing.unavailable == ()
    assert len(listing) == 4
    by_place = {(found.tier, found.repo): found for found in listing}
    a, b = by_place["local", "org/a"], by_place["local", "org/b"]
    assert (a.commit, a.revisions, a.state, a.details, a.evidence, a.bytes) == (
        ours, ("main",), "complete", (), "manifest", 2 * BLOB_BYTES,
    )  # fmt: skip
    assert a.brought_by_fastload
    assert not a.pinned
    assert a.used_at is not None
    assert a.used_at.utcoffset() == timedelta(0)
    assert (b.commit, b.revisions, b.used_at, b.brought_by_fastload, b.pinned) == (theirs, (), None, False, True)
    assert b.state == "incomplete"
    assert b.details[0].startswith("no safetensors weights")
    assert by_place[f"shared:{mount.root}", "org/a"].commit == shared
    assert by_place[f"shared:{mount.root}", "folder"].state == "plain"
    document = listing.to_dict()
    assert json.loads(json.dumps(document)) == document
    ours_said, theirs_said = (
        next(said for said in document["snapshots"] if (said["tier"], said["repo"]) == ("local", repo))
        for repo in ("org/a", "org/b")
    )
    assert datetime.fromisoformat(ours_said["used"]) == a.used_at.replace(microsecond=0)
    assert ours_said["used"].endswith("+00:00")
    assert theirs_said["used"] is None
    assert (theirs_said["state"], theirs_said["details"]) == ("incomplete", list(b.details))


def test_a_tier_that_hangs_or_cannot_be_read_is_named_and_delays_nothing(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_PATIENCE_S", 0.3)
    commit = cache.add("org/a", 1, {"w": 1})
    list_all, hanging = Root.list_all, Hanging(monkeypatch)

    def misbehave(root: Root, pass_over: Callable[[StoreError], object]) -> Iterator[Any]:
        if root.path.endswith("hung"):
            hanging.hang()
        if root.path.endswith("broken"):
            raise StoreError(root.path, "cannot be read (Input/output error)")
        return list_all(root, pass_over)

    monkeypatch.setattr(Root, "list_all", misbehave)
    mounts = [str(tmp_path / name) for name in ("hung", "broken", "empty")]
    begin_s = time.monotonic()
    listing = snapshots(options=Options(local=str(cache.root), shared=tuple(mounts)))
    assert time.monotonic() - begin_s < 20
    hanging.release()
    assert [found.commit for found in listing] == [commit]
    assert dict(listing.unavailable) == {
        f"shared:{mounts[0]}": "no answer within 0.3 s",
        f"shared:{mounts[1]}": "cannot be read (Input/output error)",
    }
    unreadable = snapshots(options=Options(local=mounts[1]))
    assert [tier for tier, _ in unreadable.unavailable] == ["local"]


def test_a_dry_run_names_what_the_real_one_frees(cache: Cache, options: Options) -> None:
    """Also where snapshots share blobs, and one has a file of its own."""
    cache.add("org/a", 1, {"w": 1, "v": 2}, used_s_ago=9000, ref="old")
    second = cache.add("org/a", 2, {"w": 1, "v": 3}, used_s_ago=8000)
    cache.add("org/b", 3, {"w": 4}, used_s_ago=7000)
    link = os.path.join(cache.layout("org/a").snapshot(second), "v")
    blob = os.path.realpath(link)
    os.unlink(link)
    os.rename(blob, link)
    before = prune(options=options).kept_bytes
    for limit in (before - 1, before - 2 * BLOB_BYTES, 0):
        planned = prune(max_bytes=limit, dry_run=True, options=options)
        done = prune(max_bytes=limit, options=options)
        assert done == planned, limit
        assert before - done.kept_bytes == sum(each.freed_bytes for each in done.removed)
        before = done.kept_bytes
    assert before == 0


def test_a_manifest_is_no_room_that_was_made(cache: Cache, options: Options) -> None:
    """It counts neither as kept nor as freed: else one goes, two should, and more than the size is kept."""
    for number in (1, 2, 3):
        cache.add(f"org/{number}", number, {"w": number}, used_s_ago=10_000 - number)
    limit = 2 * BLOB_BYTES - 1024
    planned = prune(max_bytes=limit, dry_run=True, options=options)
    done = prune(max_bytes=limit, options=options)
    assert done == planned
    assert done.kept_bytes <= limit


def test_remove_takes_what_the_name_means(cache: Cache, options: Options) -> None:
    first = cache.add("org/a", 1, {"w": 1, "v": 2}, ref="old")
    second = cache.add("org/a", 2, {"w": 1, "v": 3})
    removed = remove("org/a", options=options)
    assert (removed.repo, removed.commit) == ("org/a", second)
    assert BLOB_BYTES <= removed.freed_bytes < 2 * BLOB_BYTES
    assert cache.check() == {("org/a", first)}
    with pytest.raises(ModelNotFoundError, match="There is: org/a@old"):
        remove("org/a", options=options)
    assert remove(f"org/a@{first}", options=options).commit == first
    with pytest.raises(ModelNotFoundError) as caught:
        remove("org/a", revision="old", options=options)
    assert caught.value.searched == (str(cache.root),)
    assert cache.check() == set()


def test_an_alias_and_another_tools_snapshot_can_be_removed(cache: Cache, options: Options) -> None:
    commit = cache.add("meta-llama/Llama-3.1-8B-Instruct", 1, {"w": 1}, source=None)
    assert remove("llama-8b", options=options).commit == commit
    assert cache.check() == set()


def test_what_is_pinned_read_or_being_brought_is_not_removed(cache: Cache, options: Options) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    name = f"org/a@{commit}"
    pinned = pin("org/a", options=options)
    assert (pinned.repo, pinned.commit, str(pinned)) == ("org/a", commit, name)
    with pytest.raises(UsageError, match=f"{name} is pinned.*fastload unpin {name}"):
        remove("org/a", options=options)
    assert unpin("org/a", options=options) == pinned
    reader = open_lock(cache.layout("org/a").manifest(commit))
    assert hold_shared(reader)
    with pytest.raises(UsageError, match=f"{name} is in use: somebody reads it"):
        remove("org/a", options=options)
    os.close(reader)
    with (
        try_hold(lease_folder(str(cache.root)), "org--a", "warming org/a", LeaseTimes()) or pytest.fail("not held"),
        pytest.raises(UsageError, match=f"{name} is in use: org/a is being brought in"),
    ):
        remove("org/a", options=options)
    assert cache.check() == {("org/a", commit)}


@pytest.mark.parametrize("change", [remove, pin, unpin])
def test_only_names_on_the_local_tier_can_be_changed(cache: Cache, tmp_path: Path, change: Any) -> None:
    mount = Cache(tmp_path / "mount")
    mount.add("org/a", 1, {"w": 1})
    plain = cache.root / "folder"
    plain.mkdir(parents=True)
    (plain / "config.json").write_bytes(b"{}")
    tiers = Options(local=str(cache.root), shared=str(mount.root))
    with pytest.raises(ModelNotFoundError, match="'fastload ls' shows what is there"):
        change("org/a", options=tiers)
    with pytest.raises(UsageError, match="is a path"):
        change(plain, options=tiers)
    with pytest.raises(UsageError, match="is a plain folder"):
        change("folder", options=tiers)
    with pytest.raises(UsageError, match="the local tier may not be asked"):
        change("org/a", options=Options(local=str(cache.root), tiers="shared"))
    assert plain.is_dir()


def test_prune_goes_down_to_the_size_that_was_said_or_set(cache: Cache, options: Options) -> None:
    old = cache.add("org/old", 1, {"w": 1}, used_s_ago=9000)
    new = cache.add("org/new", 2, {"w": 2})
    theirs = cache.add("org/theirs", 3, {"w": 3}, source=None)
    planned = prune(max_bytes=BLOB_BYTES, dry_run=True, options=options)
    assert [each.commit for each in planned.removed] == [old]
    assert planned.kept_bytes == BLOB_BYTES
    assert len(cache.check()) == 3
    assert prune(options=options).removed == ()
    pruned = prune(options=Options(local=str(cache.root), local_max_bytes="64Ki"))
    assert [each.commit for each in pruned.removed] == [old]
    assert pruned.kept_bytes == BLOB_BYTES
    assert cache.check() == {("org/new", new), ("org/theirs", theirs)}
    assert [each.commit for each in prune(max_bytes="0", options=options).removed] == [new]
    assert cache.check() == {("org/theirs", theirs)}
    with pytest.raises(UsageError, match="'much' is no size"):
        prune(max_bytes="much", options=options)


@pytest.mark.parametrize("change", [remove, pin, unpin, lambda _, options: prune(max_bytes=0, options=options)])
def test_a_tier_that_hangs_is_given_up_at_the_deadline(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    cache.add("org/a", 1, {"w": 1})
    options = Options(local=str(cache.root), deadline=0.2)
    with dead_mount(monkeypatch, str(cache.root)), pytest.raises(DeadlineError):
        change("org/a", options=options)


def test_ls_prints_a_table_or_one_object(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(facts, "_PATIENCE_S", 0.2)
    commit = cache.add("org/a", 1, {"w": 1})
    pin("org/a", options=Options(local=str(cache.root)))
    _run(ls, "--local", str(cache.root))
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["tier", "name", "commit", "size", "age", "state", "pinned"]
    assert row.split()[:6] == ["local", "org/a", "(main)", commit[:12], "64.00", "KiB"]
    assert row.split()[-2:] == ["complete", "pinned"]

    never = threading.Event()

    def hang(_: Root) -> Iterator[Any]:
        never.wait()
        return iter(())

    list_all = Root.list_all

    def list_or_hang(root: Root, pass_over: Callable[[StoreError], object]) -> Iterator[Any]:
        return list_all(root, pass_over) if root.tier == LOCAL else hang(root)

    monkeypatch.setattr(Root, "list_all", list_or_hang)
    _run(ls, "--local", str(cache.root), "--shared", str(tmp_path / "mount"), "--json")
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["schema"], len(document["snapshots"])) == (1, 1)
    assert document["unavailable"] == [{"tier": f"shared:{tmp_path}/mount", "reason": "no answer within 0.2 s"}]
    assert "could not be asked" in said.err
    never.set()


@pytest.mark.parametrize(
    ("state", "details", "shown"),
    [
        ("complete", (), "complete"),
        ("plain", (), "plain"),
        ("incomplete", ("no 'a'", "no 'b'", "no 'c'", "no 'd'"), "incomplete: no 'a'; no 'b'; no 'c'"),
        ("damaged", ("a", "b", "c", "d"), "damaged: a, b, c"),
    ],
)
def test_ls_shows_the_first_three_of_what_is_wrong(
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: facts.State,
    details: tuple[str, ...],
    shown: str,
) -> None:
    cache.add("org/a", 1, {"w": 1})
    monkeypatch.setattr(facts, "_judge", lambda _: (state, details))
    _run(ls, "--local", str(cache.root))
    assert capsys.readouterr().out.splitlines()[1].split("  ")[-1] == shown
    _run(ls, "--local", str(cache.root), "--json")
    (said,) = json.loads(capsys.readouterr().out)["snapshots"]
    assert (said["state"], said["details"]) == (state, list(details))


def test_ages_are_shown_in_the_largest_unit() -> None:
    assert [ls.show_age(age_s) for age_s in (5, 61, 7300, 200000)] == ["5 s", "1 min", "2 h", "2 d"]


def test_rm_tries_all_names_and_ends_as_the_first_that_failed(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    commits = [cache.add(f"org/{name}", number, {"w": number}) for number, name in enumerate("abc")]
    with pytest.raises(PartialError, match="org/none") as caught:
        _run(rm, "org/a", "org/none", "./x", "org/b", "--local", str(cache.root))
    assert isinstance(caught.value.first, ModelNotFoundError)
    assert [each.get("exit_code") for each in caught.value.facts["removed"]] == [None, 12, 2, None]
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()] == [
        f"removed org/a@{commits[0]}",
        f"removed org/b@{commits[1]}",
    ]
    assert "is a path" in said.err
    _run(rm, "org/c", "--local", str(cache.root), "--json")
    document = json.loads(capsys.readouterr().out)
    assert [each["commit"] for each in document["removed"]] == [commits[2]]
    assert cache.check() == set()


def test_prune_says_what_went_and_what_is_kept(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    fresh = cache.add("org/b", 2, {"w": 2}, used_s_ago=0)
    flags = ("--local", str(cache.root))
    _run(prune_verb, *flags)
    assert "no size was given" in capsys.readouterr().out
    _run(prune_verb, "--max-bytes", "0", "--dry-run", *flags)
    assert f"would remove org/a@{commit}: 64.00 KiB freed" in capsys.readouterr().out
    assert len(cache.check()) == 2
    _run(prune_verb, "--max-bytes", "0", *flags)
    said = capsys.readouterr().out
    assert f"removed org/a@{commit}" in said
    assert "more than 0 B: the rest is pinned, in use" in said
    _run(prune_verb, "--max-bytes", "1Gi", "--json", *flags)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert (document["removed"], document["kept_bytes"], document["max_bytes"]) == ([], BLOB_BYTES, 1 << 30)
    assert cache.check() == {("org/b", fresh)}


def test_pin_and_unpin_say_to_what(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    commit = cache.add("org/a", 1, {"w": 1}, source=None)
    _run(pin_verb, "org/a", "--local", str(cache.root))
    assert capsys.readouterr().out == f"pinned org/a@{commit}\n"
    assert is_pinned(cache.layout("org/a"), commit)
    _run(unpin_verb, "org/a", "--local", str(cache.root), "--json")
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "unpinned": f"org/a@{commit}"}
    assert not is_pinned(cache.layout("org/a"), commit)
