"""``fastload warm --list``: once, or round after round until it is ended."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._fetch.verify.checking import FileVerdict
from fastload._fetch.verify.verification import Verification
from fastload._fetch.warm.request import WarmRequest
from fastload._finding import Finding
from fastload._store.wanted import Wish
from fastload.errors import FormatError, UsageError
from fastload.ops.metrics.file import MetricsFile
from fastload.ops.warmer.resident import stay
from fastload.ops.warmer.upkeep import Round, Upkeep, run_round
from fastload.ops.warmer.wanted_list import parse_list, read_list
from fastload.options import Options, decide_settings
from stored_models import COMMIT, OTHER_COMMIT, model_files, write_cache, write_folder
from warming import MIB, Tiers, as_json, content, large_shard, wait_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = 60.0


def _wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def _names(ready: Path, model: str) -> bool:
    """True where it is there at that moment, and names it."""
    with suppress(FileNotFoundError):
        return model in ready.read_text()
    return False


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    made = Tiers(tmp_path)
    for number, name in enumerate(("org/a", "org/b", "org/c")):
        write_cache(made.shared, name, COMMIT, model_files(number))
    return made


def _upkeep(tiers: Tiers, *, rechecks: bool = False, prunes: bool = False) -> Upkeep:
    options = Options(local=str(tiers.local), shared=str(tiers.shared), tiers="local,shared")
    return Upkeep(
        list_path=str(tiers.folder / "list"),
        request=lambda name: WarmRequest(model=name, progress=False),
        settings=decide_settings(options, {}),
        rechecks=rechecks,
        prunes=prunes,
        idle_s=0.0,
    )


def _write_list(tiers: Tiers, *names: str) -> Path:
    path = tiers.folder / "list"
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def test_a_list_has_a_name_per_line() -> None:
    raw = b"# models of this node\norg/a\n\n  org/b@v1  # why\norg/a\n#org/c\n"
    assert parse_list(raw, "list") == ("org/a", "org/b@v1")
    with pytest.raises(FormatError, match="2 words in line 2"):
        parse_list(b"org/a\norg/b org/c\n", "list")
    with pytest.raises(FormatError, match="no UTF-8"):
        parse_list(b"\xff", "list")
    with pytest.raises(UsageError, match="there is no list"):
        read_list("/nowhere/at/all")


@given(st.binary(max_size=200))
def test_a_list_is_understood_or_refused(raw: bytes) -> None:
    try:
        names = parse_list(raw, "list")
    except FormatError:
        return
    assert len(set(names)) == len(names)
    assert all(name and "#" not in name and len(name.split()) == 1 for name in names)


def test_once_it_is_as_if_the_names_were_given(tiers: Tiers) -> None:
    path = _write_list(tiers, "org/a", "org/nowhere", f"org/b@{COMMIT}")
    done = tiers.run("warm", "--list", path)
    assert done.returncode == 12, done.stderr
    assert [line.split("models--")[1].split("/")[0] for line in done.stdout.splitlines()] == ["org--a", "org--b"]
    facts = as_json(tiers.run("warm", "--list", path, "--json"))
    assert [each["model"] for each in facts["models"]] == ["org/a", "org/nowhere", f"org/b@{COMMIT}"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "wants names, or --list"),
        (["org/a", "--list", "list"], "wants names, or --list"),
        (["org/a", "--every", "6h"], "--every is for a list"),
        (["--list", "list", "--recheck"], "--recheck is for a resident warmer"),
        (["--list", "list", "--ready-file", "x"], "--ready-file is for a resident warmer"),
        (["--list", "list", "--every", "0"], "is no pause"),
        (["--list", "list", "--every", "6h", "--prune", "--to", "shared"], "--prune only with --to local"),
        (["--list", "list", "--every", "6h", "--dry-run"], "--every goes with none of"),
        (["--list", "/nowhere", "--every", "6h"], "there is no list '/nowhere'"),
    ],
)
def test_what_cannot_be_meant(tiers: Tiers, words: list[str], what: str) -> None:
    _write_list(tiers, "org/a")
    done = tiers.run("warm", *[word if word != "list" else tiers.folder / "list" for word in words])
    assert done.returncode == 2
    assert what in done.stderr


def test_it_stays_follows_the_list_and_leaves_nothing(tiers: Tiers) -> None:
    path, ready = _write_list(tiers, "org/a"), tiers.folder / "ready"
    ready.write_text("left by a process that was killed")
    with tiers.start("warm", "--list", path, "--every", "0.1s", "--ready-file", ready, "--json") as process:
        _wait_until(lambda: _names(ready, "org/a"))
        assert json.loads(ready.read_text())["ready"] is True
        assert _io_class(process.pid) == "idle"
        _write_list(tiers, "org/a", "org/b")
        _wait_until(lambda: _names(ready, "org/b"))
        _write_list(tiers, "org/a", "org/nowhere")
        _wait_until(lambda: not ready.exists())
        write_cache(tiers.shared, "org/nowhere", COMMIT, model_files(7))
        _wait_until(lambda: _names(ready, "org/nowhere"))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert not ready.exists()
    rounds = [json.loads(line) for line in out.splitlines() if line.startswith('{"schema": 1, "ready"')]
    assert [rounds[0]["ready"], rounds[-1]["ready"]] == [True, True]
    assert any(not each["ready"] and each["models"][1]["exit_code"] == 12 for each in rounds)
    assert content(tiers.repo("org/b") / "snapshots" / COMMIT) == model_files(1)  # not asked to prune


def _io_class(pid: int) -> str:
    return subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()


def test_ended_in_the_midst_of_a_transfer_it_goes_on_where_it_was(tiers: Tiers) -> None:
    files = {"model.safetensors": large_shard(24 * MIB, 3), "config.json": b"{}"}
    write_cache(tiers.shared, "org/large", COMMIT, files)
    path = _write_list(tiers, "org/large")
    with tiers.start("warm", "--list", path, "--every", "1h", "--max-rate", "8Mi") as process:
        _wait_until(lambda: any(tiers.repo("org/large").glob(".fastload/staging/*")))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143
    assert content(tiers.warm("org/large")) == files


def test_it_prunes_what_its_list_brought_and_nothing_else(tiers: Tiers) -> None:
    tiers.warm("org/c")  # by somebody else, with fastload too
    write_cache(tiers.local, "org/foreign", COMMIT, model_files(5))
    upkeep = _upkeep(tiers, prunes=True)
    _write_list(tiers, "org/a", "org/b", "org/c")
    assert run_round(upkeep).is_ready
    _write_list(tiers, "org/b")
    done = run_round(upkeep)
    assert done.pruned == (f"org/a@{COMMIT}",)
    assert not tiers.repo("org/a").exists()
    for name, seed in (("org/b", 1), ("org/c", 2), ("org/foreign", 5)):
        assert content(tiers.repo(name) / "snapshots" / COMMIT) == model_files(seed)
    assert run_round(upkeep).pruned == ()


def test_two_lists_of_one_tier_keep_to_what_each_of_them_named(tiers: Tiers) -> None:
    first = _upkeep(tiers, prunes=True)
    second = replace(first, list_path=str(tiers.folder / "other"))
    _write_list(tiers, "org/a", "org/b")
    (tiers.folder / "other").write_text("org/b\norg/c\n")
    for upkeep in (first, second, first, second):
        done = run_round(upkeep)
        assert done.is_ready and done.pruned == ()
    _write_list(tiers, "org/a")
    assert run_round(first).pruned == ()  # it brought org/b, which the other one names too
    assert run_round(second).pruned == ()
    assert content(tiers.repo("org/b") / "snapshots" / COMMIT) == model_files(1)
    (tiers.folder / "other").write_text("org/c\n")
    assert run_round(first).pruned == ()
    assert run_round(second).pruned == (f"org/b@{COMMIT}",)
    assert sorted(path.name for path in tiers.local.glob("models--*")) == ["models--org--a", "models--org--c"]


def test_nothing_is_left_of_the_lists_that_named_what_is_removed(tiers: Tiers) -> None:
    upkeep = _upkeep(tiers)
    _write_list(tiers, "org/a")
    write_cache(tiers.shared, "org/a", OTHER_COMMIT, model_files(8), ref="v2")
    assert run_round(upkeep).is_ready
    assert run_round(replace(upkeep, request=lambda name: WarmRequest(model=f"{name}@v2", progress=False))).is_ready
    listed = tiers.repo("org/a") / ".fastload" / "listed"
    assert {path.name.partition(".")[0] for path in listed.iterdir()} == {COMMIT, OTHER_COMMIT}
    assert {path.read_text() for path in listed.iterdir()} == {f"{upkeep.list_path}\n"}
    assert tiers.run("rm", f"org/a@{COMMIT}").returncode == 0
    assert {path.name.partition(".")[0] for path in listed.iterdir()} == {OTHER_COMMIT}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names nothing"),
        ("\n# all of them are gone\n", "names nothing"),
        ("# of this node\norg/b", "midst of a line"),
        ("org/b\n# of th", "midst of a line"),
        ("org/b\norg/nowhere\n", "'org/nowhere' failed"),
    ],
)
def test_a_list_that_may_not_be_meant_prunes_nothing_and_says_so(tiers: Tiers, text: str, why: str) -> None:
    """Such as a ConfigMap that is empty for a moment, or a file that somebody is still writing."""
    upkeep = _upkeep(tiers, prunes=True)
    path = _write_list(tiers, "org/a", "org/b")
    assert run_round(upkeep).is_ready
    path.write_text(text)
    done = run_round(upkeep)
    assert done.pruned == () and done.not_pruned is not None and why in done.not_pruned
    assert content(tiers.repo("org/a") / "snapshots" / COMMIT) == model_files(0)
    assert why in done.to_dict()["not_pruned"]
    path.write_text("org/b\n")
    done = run_round(upkeep)
    assert done.pruned == (f"org/a@{COMMIT}",) and done.not_pruned is None


def test_a_list_that_changes_while_its_models_come_prunes_nothing_yet(tiers: Tiers) -> None:
    upkeep = _upkeep(tiers, prunes=True)
    _write_list(tiers, "org/a", "org/b")
    assert run_round(upkeep).is_ready

    def request(name: str) -> WarmRequest:
        _write_list(tiers, "org/a", "org/b", "org/c")  # somebody has second thoughts
        return WarmRequest(model=name, progress=False)

    _write_list(tiers, "org/b")
    done = run_round(replace(upkeep, request=request))
    assert done.pruned == () and done.not_pruned == "the list has changed meanwhile"
    assert tiers.repo("org/a").exists()


def test_the_log_says_that_nothing_was_pruned(tiers: Tiers) -> None:
    path = _write_list(tiers, "org/a")
    assert run_round(_upkeep(tiers)).is_ready
    path.write_text("# none\n")
    with tiers.start("warm", "--list", path, "--every", "1h", "--prune") as process:
        assert "the list names nothing" in wait_told(process, "nothing was pruned")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("who", ["another tool", "another command", "another tool, later"])
def test_what_it_only_completed_is_not_its_to_prune(tiers: Tiers, who: str) -> None:
    upkeep = _upkeep(tiers, prunes=True)
    extra = {"notes.rst": b"of the model"}
    write_cache(tiers.shared, "org/d", COMMIT, files := {**model_files(4), **extra})
    _write_list(tiers, "org/d", "org/b")
    if who == "another tool":
        write_cache(tiers.local, "org/d", COMMIT, {"config.json": files["config.json"]})
    if who == "another command":
        tiers.warm("org/d", "--exclude", "tokenizer*")
    if who == "another tool, later":
        assert run_round(upkeep).is_ready
        write_cache(tiers.local, "org/d", COMMIT, extra, ref=None)
    whole = replace(upkeep, request=lambda name: WarmRequest(model=name, progress=False, wish=Wish(("*.rst",))))
    assert run_round(whole if who == "another tool, later" else upkeep).is_ready
    _write_list(tiers, "org/b")
    assert run_round(upkeep).pruned == ()
    there = content(tiers.repo("org/d") / "snapshots" / COMMIT)
    assert there == (files if who == "another tool, later" else model_files(4))


def test_what_it_brought_and_mended_is_still_its_to_prune(tiers: Tiers) -> None:
    upkeep = _upkeep(tiers, prunes=True)
    _write_list(tiers, "org/a", "org/b")
    assert run_round(upkeep).is_ready
    (tiers.repo("org/a") / "snapshots" / COMMIT / "config.json").unlink()
    assert run_round(upkeep).is_ready
    _write_list(tiers, "org/b")
    assert run_round(upkeep).pruned == (f"org/a@{COMMIT}",)


def test_a_commit_that_the_name_means_no_more_is_pruned_too(tiers: Tiers) -> None:
    upkeep = _upkeep(tiers, prunes=True)
    _write_list(tiers, "org/a")
    assert run_round(upkeep).is_ready
    write_cache(tiers.shared, "org/a", OTHER_COMMIT, model_files(8))
    assert run_round(upkeep).pruned == (f"org/a@{COMMIT}",)
    assert content(tiers.repo("org/a") / "snapshots" / OTHER_COMMIT) == model_files(8)


@pytest.mark.parametrize("why", ["pinned", "just used", "another failed", "not asked to"])
def test_it_keeps(tiers: Tiers, why: str) -> None:
    upkeep = _upkeep(tiers, prunes=why != "not asked to")
    _write_list(tiers, "org/a", "org/b")
    assert run_round(upkeep).is_ready
    if why == "pinned":
        assert tiers.run("pin", "org/a").returncode == 0
    if why == "just used":
        upkeep = replace(upkeep, idle_s=600.0)
    _write_list(tiers, "org/b", *(["org/nowhere"] if why == "another failed" else []))
    assert run_round(upkeep).pruned == ()
    assert content(tiers.repo("org/a") / "snapshots" / COMMIT) == model_files(0)


def test_it_rechecks_and_mends(tiers: Tiers) -> None:
    _write_list(tiers, "org/a")
    assert run_round(_upkeep(tiers)).is_ready
    blob = (tiers.repo("org/a") / "snapshots" / COMMIT / "model-00001-of-00002.safetensors").resolve()
    blob.chmod(0o644)
    raw = bytearray(blob.read_bytes())
    raw[-1] ^= 1
    blob.write_bytes(raw)
    assert run_round(_upkeep(tiers)).is_ready  # it is there, and nobody has looked
    assert content(tiers.repo("org/a") / "snapshots" / COMMIT) != model_files(0)
    assert run_round(_upkeep(tiers, rechecks=True)).is_ready
    assert content(tiers.repo("org/a") / "snapshots" / COMMIT) == model_files(0)


def test_a_recheck_is_held_to_the_rate(tiers: Tiers) -> None:
    """It shares the disk with those who serve."""
    write_cache(tiers.shared, "org/large", COMMIT, {"model.safetensors": large_shard(8 * MIB, 1)})
    _write_list(tiers, "org/large")
    assert run_round(_upkeep(tiers)).is_ready
    upkeep = _upkeep(tiers, rechecks=True)
    begin_s = time.monotonic()
    assert run_round(replace(upkeep, settings=replace(upkeep.settings, max_rate=8 * MIB))).is_ready
    assert time.monotonic() - begin_s >= 0.8


def test_it_rechecks_what_it_was_told_to_bring(tiers: Tiers) -> None:
    """Elsewhere than on the local tier, which has the model too."""
    other = tiers.folder / "other"
    _write_list(tiers, "org/a")
    assert run_round(_upkeep(tiers)).is_ready
    upkeep = replace(
        _upkeep(tiers, rechecks=True), request=lambda name: WarmRequest(model=name, to=str(other), progress=False)
    )
    assert run_round(upkeep).is_ready
    snapshot = other / "models--org--a" / "snapshots" / COMMIT
    blob = (snapshot / "model-00001-of-00002.safetensors").resolve()
    blob.chmod(0o644)
    raw = bytearray(blob.read_bytes())
    raw[-1] ^= 1
    blob.write_bytes(raw)
    done = run_round(upkeep)
    assert done.is_ready
    assert content(snapshot) == model_files(0)
    (mended,) = done.to_dict()["models"][0]["mended"]
    assert (mended["path"], mended["repaired"]) == ("model-00001-of-00002.safetensors", True)


def test_what_a_recheck_mends_is_in_the_metrics(tmp_path: Path) -> None:
    finding = Finding(path="a.safetensors", block=0, offset=0, found="x", expected="y", repaired=True)
    files = (
        FileVerdict(path="a.safetensors", nbytes=1, evidence="blocks", findings=(finding,)),
        FileVerdict(path="b.safetensors", nbytes=1, evidence="blocks", findings=(), reread=True),
    )
    found = Verification(path="/m", tier="local", commit=None, evidence="manifest", files=files, recorded=False)
    metrics = MetricsFile(str(tmp_path / "fastload.prom"), None)
    metrics.tell_done("org/a", None)
    metrics.tell_checked("org/a", found)
    metrics.write()
    text = (tmp_path / "fastload.prom").read_text()
    assert 'fastload_last_verify_failures{model="org/a"} 2' in text
    assert 'fastload_last_repaired_blocks{model="org/a"} 1' in text


def test_what_cannot_be_mended_is_not_ready(tiers: Tiers) -> None:
    _write_list(tiers, "org/a")
    assert run_round(_upkeep(tiers)).is_ready
    for root in (tiers.local, tiers.shared):
        blob = (root / "models--org--a" / "snapshots" / COMMIT / "model-00001-of-00002.safetensors").resolve()
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    done = run_round(_upkeep(tiers, rechecks=True))
    assert not done.is_ready
    assert done.to_dict()["models"][0]["exit_code"] == 13


def test_a_list_that_cannot_be_read_for_a_while_changes_nothing(tiers: Tiers) -> None:
    upkeep = _upkeep(tiers, prunes=True)
    path = _write_list(tiers, "org/a")
    assert run_round(upkeep).is_ready
    path.unlink()
    done = run_round(upkeep)
    assert not done.is_ready and done.pruned == () and isinstance(done.problem, UsageError)
    assert tiers.repo("org/a").exists()


def test_the_ready_file_goes_with_whatever_ends_the_warmer(tiers: Tiers) -> None:
    ready = tiers.folder / "ready"
    _write_list(tiers, "org/a")

    was_there = []

    def tell(done: Round) -> None:
        assert done.is_ready
        was_there.append(ready.exists())
        if len(was_there) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stay(_upkeep(tiers), 0.01, str(ready), tell)
    assert was_there == [False, True]  # whoever sees it may read the metrics of that round
    assert not ready.exists()


def test_a_ready_file_of_a_killed_process_is_taken_away_first(tiers: Tiers) -> None:
    ready = tiers.folder / "ready"
    ready.write_text("{}")
    _write_list(tiers, "org/a")

    def request(name: str) -> WarmRequest:
        assert not ready.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stay(replace(_upkeep(tiers), request=request), 3600, str(ready), lambda _: None)


def test_a_folder_that_was_listed_goes_too(tiers: Tiers) -> None:
    write_folder(tiers.shared / "plain", model_files(9))
    upkeep = _upkeep(tiers, prunes=True)
    _write_list(tiers, "plain", "org/a")
    assert run_round(upkeep).is_ready
    _write_list(tiers, "org/a")
    assert len(run_round(upkeep).pruned) == 1
    assert not tiers.repo("plain").exists()
    assert (tiers.shared / "plain" / "config.json").exists()
