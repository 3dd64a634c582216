"""What can be asked of ``fastload warm``, and how it says no."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload import Options, UsageError
from fastload._fetch.warm.request import WarmRequest
from fastload._fetch.warm.warm import warm
from fastload._store.lease.holder import parse_holder
from fastload.options import decide_settings
from stopwatch import Stopwatch
from stored_models import COMMIT, OTHER_COMMIT, model_files, write_cache, write_folder
from warming import FASTLOAD, MIB, Tiers, as_json, content, eventually, large_shard, tree

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.lease.holder import Holder

REPO = "org/name"


def parse_record(path: Path) -> Holder:
    """What a lease says; it is replaced whole, and never gone while it is held."""
    return parse_holder(path.read_bytes(), path=str(path))


def differs(lease: Path, field: str, before: object) -> bool:
    """True once it says something else."""
    return bool(getattr(parse_record(lease), field) != before)


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, model_files())
    return made


@pytest.fixture
def large(tmp_path: Path) -> Tiers:
    """A model of 40 MiB."""
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, {"model.safetensors": large_shard(40 * MIB, 0), "config.json": b"{}"})
    return made


def test_deadline(large: Tiers) -> None:
    begin_s = time.monotonic()
    done = large.run("warm", REPO, "--max-rate", "1Mi", "--deadline", "1s")
    assert done.returncode == 19, done.stderr
    assert time.monotonic() - begin_s < 15, "it would take forty"
    assert "run it again" in done.stderr and done.stdout == ""
    assert large.warm(REPO, "--deadline", "60s").exists()


def test_max_rate(large: Tiers) -> None:
    begin_s = time.monotonic()
    with Stopwatch() as watch:
        large.warm(REPO, "--max-rate", "20Mi")
    assert time.monotonic() - begin_s > 2.0 * 0.9
    assert watch.seconds < 8.0, "2 s, and what a busy machine takes to start"


def test_to_a_root_and_to_the_first_shared(tiers: Tiers, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert tiers.warm(REPO, "--to", other).parent.parent.parent == other
    assert not tiers.local.exists()
    write_cache(tiers.local, "org/mine", OTHER_COMMIT, model_files(3))
    assert tiers.warm("org/mine", "--to", "shared").parent.parent.parent == tiers.shared
    assert tiers.run("warm", REPO, "--to", "elsewhere").returncode == 2
    assert tiers.run("warm", REPO, "--to", "shared", FASTLOAD_SHARED="").returncode == 2


@pytest.mark.parametrize("to", [3, b"local", "local\0", "/a\0b", ["local"]])
def test_to_what_is_no_tier_is_refused(to: Any) -> None:
    with pytest.raises(UsageError, match="is no tier"):
        fastload.warm(REPO, to=to)


def test_to_none_is_to_local_and_a_path_is_a_root(tiers: Tiers, tmp_path: Path) -> None:
    options = Options(local=str(tiers.local), shared=str(tiers.shared), tiers=("local", "shared"))
    assert fastload.warm(REPO, to=None, options=options).tier == "local"
    other = fastload.warm(REPO, to=tmp_path / "other", options=options)
    assert other.path.startswith(str(tmp_path / "other"))


@pytest.mark.parametrize("progress", [3, "yes"])
def test_progress_is_refused_before_anything_is_brought(tiers: Tiers, progress: Any) -> None:
    with pytest.raises(UsageError, match="progress= got"):
        fastload.warm(REPO, progress=progress, options=Options(local=str(tiers.local), shared=str(tiers.shared)))
    assert not tiers.local.exists()


@pytest.mark.parametrize(
    "place",
    [
        "shared/models--org--name",
        "shared/models--org--name/snapshots",
        f"shared/models--org--name/snapshots/{COMMIT}",
        "shared/models--org--new/below",
        "shared/.locks",
        "shared/plain",
        "shared/plain/below/new",
        "shared/plain/.fastload",
        "link",
    ],
)
def test_to_is_no_model_and_no_part_of_a_cache(tiers: Tiers, place: str) -> None:
    write_folder(tiers.shared / "plain", model_files(3))
    (tiers.folder / "link").symlink_to(tiers.shared / f"models--org--name/snapshots/{COMMIT}")
    before = tree(tiers.folder)
    for words in ((), ("--dry-run",)):
        done = tiers.run("warm", REPO, "--to", tiers.folder / place, *words)
        assert done.returncode == 2 and "--plain" in done.stderr, done.stderr
    assert tree(tiers.folder) == before


@pytest.mark.parametrize("stray", ["config.json", "stray.gguf", "lora.safetensors", ".fastload"])
def test_to_is_no_folder_with_a_file_of_a_model_but_may_lie_below_one(tiers: Tiers, tmp_path: Path, stray: str) -> None:
    """A home has what programs keep there, and what somebody has downloaded."""
    (tmp_path / stray).mkdir() if stray == ".fastload" else (tmp_path / stray).write_text("{}")
    assert tiers.run("warm", REPO, "--to", tmp_path).returncode == 2
    assert tiers.warm(REPO, "--to", tmp_path / "cache" / "hub").exists()


def test_to_a_cache_with_a_model_at_its_top_is_still_one(tiers: Tiers, tmp_path: Path) -> None:
    write_cache(tmp_path / "used", "org/mine", OTHER_COMMIT, model_files(3))
    (tmp_path / "used" / "stray.gguf").write_bytes(b"gguf")
    assert tiers.warm(REPO, "--to", tmp_path / "used").exists()
    assert tiers.warm(REPO, "--to", tmp_path / "used" / "below").exists()


def test_link_follows_the_snapshot(tiers: Tiers, tmp_path: Path) -> None:
    link = tmp_path / "serve" / "model"
    snapshot = tiers.warm(REPO, "--link", link)
    assert not os.path.isabs(os.readlink(link)) and link.resolve() == snapshot
    before = tree(link.parent)
    tiers.warm(REPO, "--link", link)
    assert tree(link.parent) == before
    write_cache(tiers.shared, REPO, OTHER_COMMIT, model_files(1))
    newer = tiers.warm(f"{REPO}@{OTHER_COMMIT}", "--link", link)
    assert link.resolve() == newer != snapshot
    assert os.listdir(link.parent) == ["model"]


@pytest.mark.parametrize("place", ["local/link", "local/models--org--name/link"])
def test_link_inside_the_cache_is_refused_before_anything_is_brought(tiers: Tiers, place: str) -> None:
    done = tiers.run("warm", REPO, "--link", tiers.folder / place)
    assert done.returncode == 2 and "lies in the cache" in done.stderr
    assert not tiers.local.exists()


@pytest.mark.parametrize("flag", ["--link", "--plain"])
@pytest.mark.parametrize("more", [(), ("org/other",)])
def test_a_path_that_is_empty_is_none(tiers: Tiers, flag: str, more: tuple[str, ...]) -> None:
    """As of a variable that is not set."""
    done = tiers.run("warm", REPO, *more, flag, "")
    assert done.returncode == 2 and f"{flag} wants a path" in done.stderr
    assert not tiers.local.exists()


def test_link_replaces_nothing_but_a_link(tiers: Tiers) -> None:
    (tiers.folder / "taken").mkdir()
    assert tiers.run("warm", REPO, "--link", tiers.folder / "taken").returncode == 2
    assert not tiers.local.exists()


def test_plain_has_real_files_and_its_own_manifest(tiers: Tiers) -> None:
    plain = tiers.folder / "served"
    assert tiers.warm(REPO, "--plain", plain) == plain
    assert content(plain) == model_files()
    assert not [path for path in plain.rglob("*") if path.is_symlink()]
    assert os.listdir(plain / ".fastload/manifests") == [f"{COMMIT}.json"]
    assert sorted(os.listdir(plain)) == sorted([".fastload", *model_files()])
    assert not tiers.local.exists()
    before = tree(plain)
    tiers.warm(REPO, "--plain", plain)
    assert tree(plain) == before
    (plain / "mine.txt").write_text("stays")
    newer = {**model_files(1), "extra.json": b"{}"}
    del newer["tokenizer.json"]
    write_cache(tiers.shared, REPO, OTHER_COMMIT, newer)
    tiers.warm(REPO, "--plain", plain)
    assert content(plain) == newer | {"mine.txt": b"stays"}
    assert os.listdir(plain / ".fastload/manifests") == [f"{OTHER_COMMIT}.json"]
    assert tiers.run("load", plain).returncode == 0


@pytest.mark.parametrize("below", ["", "models--org--name", "models--org--name/x", "models--org--new", ".locks"])
def test_plain_is_no_root_and_no_part_of_a_repo(tiers: Tiers, below: str) -> None:
    for root in (tiers.local, tiers.shared):
        before = tree(root) if root.exists() else None
        done = tiers.run("warm", REPO, "--plain", root / below)
        assert done.returncode == 2 and "mix its files" in done.stderr
        assert (tree(root) if root.exists() else None) == before
    assert tiers.run("warm", REPO, "--plain", tiers.folder).returncode == 2, "above the tiers"


def test_plain_on_a_mount_is_a_model_of_that_mount(tiers: Tiers) -> None:
    served = tiers.shared / "Served"
    assert tiers.warm(REPO, "--plain", served) == served
    assert tiers.run("resolve", "Served").stdout.strip() == str(served)


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ((), "'fastload ls' shows what is there, 'fastload rm' and 'fastload prune' remove it"),
        (
            ("--to", "shared"),
            "'fastload ls --local {0}/shared' shows what is there, 'fastload rm --local {0}/shared NAME'",
        ),
        (("--to", "{0}/other"), "'fastload rm --local {0}/other NAME' removes it"),
        (("--plain", "{0}/served"), "Free space on that volume; or lower min_free, or make the volume larger"),
    ],
)
def test_where_there_is_no_room_the_cure_is_for_the_target(tiers: Tiers, words: tuple[str, ...], cure: str) -> None:
    write_cache(tiers.folder / "source", "org/mine", OTHER_COMMIT, model_files(3))
    tiers.more = {"FASTLOAD_SHARED": f"{tiers.shared}:{tiers.folder / 'source'}"}
    to = [word.format(tiers.folder) for word in words]
    done = tiers.run("warm", "org/mine", "--min-free", "100000Ti", *to)
    assert done.returncode == 14 and cure.format(tiers.folder) in done.stderr, done.stderr
    assert ("prune" in done.stderr) == (not words)


def test_what_the_cure_names_frees_room_on_another_cache(tiers: Tiers) -> None:
    tiers.warm(REPO, "--to", tiers.folder / "other")
    assert tiers.run("rm", "--local", tiers.folder / "other", REPO).returncode == 0
    assert not (tiers.folder / "other/models--org--name").exists()


def test_plain_over_its_own_source_is_refused(tiers: Tiers) -> None:
    folder = write_folder(tiers.folder / "source", model_files(5))
    before = tree(folder)
    for plain in (folder, folder / "below"):
        done = tiers.run("warm", folder, "--plain", plain)
        assert done.returncode == 2 and "lie in each other" in done.stderr
    assert tree(folder) == before


@pytest.mark.parametrize("slots", ["0", "-1"])
def test_slots_for_nobody_are_refused(tiers: Tiers, slots: str) -> None:
    done = tiers.run("warm", REPO, "--slots", slots)
    assert done.returncode == 2 and "lets nobody copy" in done.stderr
    assert not tiers.local.exists()


def test_jitter_ends_at_the_deadline(tiers: Tiers) -> None:
    begin_s = time.monotonic()
    done = tiers.run("warm", REPO, "--jitter", "1000000h", "--deadline", "0.5s")
    assert done.returncode == 19, done.stderr
    assert time.monotonic() - begin_s < 30


def test_retries_of_a_hub_that_is_away_end_at_the_deadline(tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound and not listening: every attempt is refused
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": endpoint})
        begin_s = time.monotonic()
        done = tiers.run("warm", REPO, "--deadline", "1s")
        assert done.returncode == 10 and "no connection" in done.stderr, "the cause, and not only that time is over"
        assert time.monotonic() - begin_s < 12, "six attempts take half a minute"


def test_a_hub_that_is_silent_says_how_much_of_the_deadline_it_got(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes what it is sent, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": endpoint})
        done = tiers.run("warm", REPO, "--deadline", "1s")
    assert done.returncode == 10 and "gets half of the deadline, 0.5 s" in done.stderr, done.stderr


def test_plain_of_a_plain_folder_follows_its_changes(tiers: Tiers) -> None:
    folder = write_folder(tiers.shared / "folder", model_files(5))
    plain = tiers.folder / "served"
    tiers.warm("folder", "--plain", plain)
    before = tree(plain)
    tiers.warm("folder", "--plain", plain)
    assert tree(plain) == before
    write_folder(folder, model_files(6))
    tiers.warm("folder", "--plain", plain)
    assert content(plain) == model_files(6)


def test_what_is_lost_from_plain_comes_back(tiers: Tiers) -> None:
    plain = tiers.folder / "served"
    tiers.warm(REPO, "--plain", plain)
    (plain / "config.json").unlink()
    tiers.warm(REPO, "--plain", plain)
    assert content(plain) == model_files()


def test_dry_run_writes_nothing(tiers: Tiers) -> None:
    before = tree(tiers.folder)
    done = tiers.run("warm", REPO, "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "config.json" in done.stderr and f"shared:{tiers.shared}" in done.stderr
    planned = as_json(tiers.run("warm", REPO, "--dry-run", "--json"))["models"][0]
    assert planned["bytes"] == sum(map(len, model_files().values()))
    assert tree(tiers.folder) == before
    tiers.warm(REPO)
    assert "nothing to do" in tiers.run("warm", REPO, "--dry-run").stderr


def test_include_and_exclude(tiers: Tiers) -> None:
    files = {"model.gguf": b"gguf", "tokenizer.json": b"{}", "config.json": b"{}"}
    write_cache(tiers.shared, "org/gguf", COMMIT, files)
    for words in ((), ("--dry-run",)):
        done = tiers.run("warm", "org/gguf", *words)
        assert done.returncode == 17
        assert "model.gguf" in done.stderr and "--include" in done.stderr
    assert not tiers.repo("org/gguf").exists()
    assert content(tiers.warm("org/gguf", "--include", "*.gguf", "--exclude", "tok*")).keys() == {
        "model.gguf",
        "config.json",
    }


def test_what_exclude_has_left_out_is_not_said_to_be_left_out_by_default(tiers: Tiers) -> None:
    for words in ((), ("--dry-run",)):
        said = tiers.run("warm", REPO, "--exclude", "tok*", "--exclude", "*.safetensors", *words).stderr
        assert "exclude ('*.safetensors') leaves out" in said and "model-00001-of-00002.safetensors" in said
        assert "by default" not in said and "--include" not in said
    write_cache(tiers.shared, "org/both", COMMIT, {**model_files(), "model.gguf": b"gguf"})
    said = tiers.run("warm", "org/both", "--exclude", "*.safetensors").stderr
    assert "left out by default: 'model.gguf'" in said and "--include" in said


def test_second_copies_of_the_weights_are_left_out(tiers: Tiers) -> None:
    more = {"original/params.json": b"{}", "consolidated.safetensors": large_shard(64, 9), "w.bin": b"y", "w.pth": b"z"}
    write_cache(tiers.shared, "org/both", COMMIT, model_files() | more)
    snapshot = tiers.warm("org/both")
    assert content(snapshot) == model_files()
    tiers.warm("org/both", "--include", "original/*", "--include", "*.pth")
    assert content(snapshot).keys() == {*model_files(), "original/params.json", "w.pth"}


def test_jitter_waits_a_while(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it, which is random: here, all."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high - low)
    options = Options(local=str(tiers.local), shared=(str(tiers.shared),), tiers=("local", "shared"))
    begin_s = time.monotonic()
    warm(WarmRequest(model=REPO, jitter_s=0.7), decide_settings(options, {}))
    assert time.monotonic() - begin_s >= 0.7
    assert tiers.run("warm", REPO, "--jitter", "0.2s").returncode == 0


def test_slots_let_so_many_copy_at_once(large: Tiers) -> None:
    write_cache(large.shared, "org/other", COMMIT, {"model.safetensors": large_shard(24 * MIB, 1)})
    words = ("--slots", "1", "--max-rate", "16Mi")
    begin_s = time.monotonic()
    first = large.start("warm", REPO, *words)
    eventually(lambda: any((large.shared / ".locks/fastload").glob("slot-0*.lease")))
    second = large.start("warm", "org/other", *words)
    _, told = second.communicate(timeout=60)
    assert (first.wait(), second.returncode) == (0, 0), told
    first.communicate()
    assert "waiting for pid" in told and "copying org/name" in told
    assert time.monotonic() - begin_s > 4.0 * 0.95  # 64 MiB one after the other


def test_a_slot_says_how_far_its_copy_is_and_so_does_who_waits_for_it(large: Tiers) -> None:
    """Else those who wait take a copy that is long for one that hangs, and give up."""
    words = ("warm", REPO, "--slots", "1")
    other = Tiers(large.folder / "other", more={"FASTLOAD_SHARED": str(large.shared)})
    copying = large.start(*words, "--max-rate", "2Mi")
    slot = large.shared / ".locks/fastload/slot-0.lease"
    eventually(slot.exists)
    waiting = other.start(*words)
    bringing = other.local / ".locks/fastload/org--name.lease"
    eventually(bringing.exists)
    try:
        eventually(lambda: parse_record(slot).done_bytes > 0)
        for _ in range(2):
            before, said = parse_record(slot).done_bytes, parse_record(bringing).what
            eventually(partial(differs, slot, "done_bytes", before))
            eventually(partial(differs, bringing, "what", said))
            assert f"waiting for pid {copying.pid}" in parse_record(bringing).what
        assert parse_record(slot).total_bytes > 40 * MIB
    finally:
        for process in (copying, waiting):
            process.kill()
            process.communicate()


def test_slots_on_a_mount_that_cannot_be_written(tiers: Tiers) -> None:
    mount = f"mount --bind {tiers.shared} {tiers.shared} && mount -o remount,bind,ro {tiers.shared}"
    command = f"{mount} && exec {' '.join(FASTLOAD)} warm {REPO} --slots 2"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, check=False, env=tiers.environment
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"may not mount here: {done.stderr}")
    assert done.returncode == 15 and "read-only" in done.stderr


def test_several_names(tiers: Tiers) -> None:
    write_cache(tiers.shared, "org/second", COMMIT, model_files(1))
    words = ("warm", REPO, "no/such", "org/second", "also-not")
    done = tiers.run(*words)
    assert done.returncode == 12
    paths = [tiers.repo(name) / "snapshots" / COMMIT for name in (REPO, "org/second")]
    assert done.stdout.splitlines() == list(map(str, paths))
    assert "'no/such'" in done.stderr and "'also-not'" in done.stderr
    document = as_json(tiers.run(*words, "--json"))
    assert document["exit_code"] == 12 and document["error"]["model"] == "no/such"
    assert [entry["model"] for entry in document["models"]] == list(words[1:])
    assert [entry.get("exit_code") for entry in document["models"]] == [None, 12, None, 12]
    assert document["models"][0]["path"] == str(paths[0])


def test_json_of_one_name(tiers: Tiers) -> None:
    document = as_json(tiers.run("warm", REPO, "--json"))
    (entry,) = document["models"]
    assert document["schema"] == 1
    assert (entry["repo"], entry["commit"], entry["tier"], entry["complete"]) == (REPO, COMMIT, "local", True)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such"])
def test_a_path_where_nothing_is(tiers: Tiers, name: str) -> None:
    done = tiers.run("warm", name)
    assert done.returncode == 12, done.stderr


def test_a_folder_by_its_path(tiers: Tiers) -> None:
    folder = write_folder(tiers.folder / "given" / "by-path", model_files(7))
    snapshot = tiers.warm(folder)
    assert content(snapshot) == model_files(7)
    assert snapshot.parent.parent.name == "models--by-path"
    before = tree(tiers.local)
    assert tiers.warm(f"{folder}/") == snapshot
    assert tree(tiers.local) == before


@pytest.mark.parametrize("name", ["my--model", "my model@x", "model@main", "-model", ".model"])
def test_a_folder_that_no_model_can_be_called_after_is_refused(tiers: Tiers, name: str) -> None:
    """``models--my--model`` is the repo my/model: its ref would lead to other weights than its own."""
    write_cache(tiers.local, "my/model", COMMIT, model_files())
    folder = write_folder(tiers.folder / "given" / name, model_files(7))
    before = tree(tiers.local)
    done = tiers.run("warm", folder)
    assert done.returncode == 2, done.stderr
    assert str(folder) in done.stderr
    assert tree(tiers.local) == before
    (tiers.folder / "a-link").symlink_to(folder)
    assert content(tiers.warm(tiers.folder / "a-link")) == model_files(7)


def test_a_snapshot_by_its_path_is_its_repos(tiers: Tiers) -> None:
    snapshot = tiers.repo(REPO) / "snapshots" / COMMIT
    assert tiers.warm(tiers.shared / snapshot.relative_to(tiers.local)) == snapshot
    assert content(snapshot) == model_files()
    assert tiers.manifest(REPO, COMMIT).repo == REPO
    assert not (tiers.repo(REPO) / "refs").exists(), "nobody has said what main is"


def test_an_incomplete_snapshot_by_its_path_is_refused(tiers: Tiers) -> None:
    snapshot = tiers.shared / "models--org--name" / "snapshots" / COMMIT
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    done = tiers.run("warm", snapshot)
    assert done.returncode == 12
    assert "no 'model-00002-of-00002.safetensors'" in done.stderr


@pytest.mark.parametrize("mark", ["", ".aria2"])
def test_a_folder_by_its_path_that_is_half_there_is_refused(tiers: Tiers, mark: str) -> None:
    folder = write_folder(tiers.folder / "given" / "half", model_files(7))
    shard = folder / "model-00002-of-00002.safetensors"
    if mark:
        (folder / f"{shard.name}{mark}").touch()
    else:
        os.truncate(shard, shard.stat().st_size - 1)
    done = tiers.run("warm", folder)
    assert (done.returncode, done.stdout) == (12, ""), done.stderr
    assert shard.name in done.stderr
    assert not tiers.local.exists() or not list(tiers.local.glob("models--*"))


@pytest.mark.parametrize("to", ["local", "shared"])
def test_a_plain_folder_on_the_target_itself_is_there_already(tiers: Tiers, to: str) -> None:
    """A copy beside it would take its room twice."""
    folder = write_folder(tiers.folder / to / "mine", model_files(7))
    before = tree(tiers.folder)
    assert tiers.warm("mine", "--to", to) == folder
    planned = as_json(tiers.run("warm", "mine", "--to", to, "--dry-run", "--json"))["models"][0]
    assert planned["files"] == []
    assert tree(tiers.folder) == before
    link = tiers.folder / "current"
    assert tiers.warm("mine", "--to", to, "--link", link) == folder
    assert link.resolve() == folder
