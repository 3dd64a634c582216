"""Blocks that came from another tier wait on the storage for the end of the load, and not in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fastload
from fastload import IntegrityError, Options, StoreError
from fastload._fetch.mend.mended_file import MendedFile
from fastload._fetch.mend.mended_files import MendedFiles
from fastload._fetch.mend.stored_file import MENDED_STEM
from fastload._read.file import identify
from fastload._read.proof import WantedBlock
from fastload._read.reader import PlainFile
from fastload._store.admit.area import UNDER_LEASE
from fastload._store.filesystem import new_id
from fastload._store.root import Root
from fastload._tier import LOCAL
from models import MIB, assert_same, save_large
from proven_models import REPO, Model, flip
from stored_models import COMMIT
from test_bad_memory import flip_reads, in_page_cache

SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"
BLOCK = 4 * MIB
BLOCKS = 128

_PEAK = """
import fastload
def peak(): return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
options = fastload.Options(local={local!r}, shared={shared!r}, tiers=("local", "shared"), staging_bytes="32Mi")
for _ in fastload.stream("other", options=options): pass
before = peak()
{what}
print(peak() - before)
"""
_WHAT = {
    "stream": f"for _ in fastload.stream({REPO!r}, options=options): pass",
    "verify": f"fastload.verify({REPO!r}, repair=True, options=options)",
}


def staging(model: Model) -> list[str]:
    return os.listdir(model.local / "models--org--name/.fastload/staging")


def is_kept(descriptor: Path, model: Model) -> bool:
    """True of an open file that has no name in the folder any more, or none yet."""
    leads_to = os.readlink(descriptor) if descriptor.is_symlink() else ""
    return leads_to.startswith(f"{model.local}/") and "/.fastload/staging/" in leads_to


def state(model: Model) -> tuple[str, ...]:
    """The word for it, and which files are damaged."""
    facts = next(each for each in fastload.snapshots(options=model.options) if each.tier == "local")
    return (facts.state, *facts.details)


@pytest.mark.parametrize("how", _WHAT)
def test_to_mend_nearly_all_of_a_model_takes_no_memory_for_it(tmp_path: Path, how: str) -> None:
    (tmp_path / "made").mkdir()
    tensors = save_large(tmp_path / "made", BLOCKS // 2, 2 * BLOCK)
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    model = Model(tmp_path)
    model.tensors, model.files = dict(tensors), files
    snapshot = model.warmed()
    small = tmp_path / "local/other"  # what the first load of a process takes is not asked
    small.mkdir()
    save_large(small, 1, MIB)
    (shard,) = snapshot.glob("*.safetensors")
    for index in range(1, BLOCKS):
        flip(shard, index * BLOCK + 9)
    script = _PEAK.format(local=str(model.local), shared=str(model.shared), what=_WHAT[how])
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < BLOCKS * BLOCK // 2
    assert shard.read_bytes() == files[shard.name]
    assert staging(model) == []


def test_a_stream_that_is_closed_early_leaves_a_mark_and_nothing_else(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)  # in the header: mended before the first tensor
    flip(snapshot / OTHER_SHARD, 9)
    with fastload.stream(REPO, options=model.options) as stream:
        next(stream)
    assert stream.report.blocks_repaired >= 2
    assert state(model) == ("damaged", SHARD, OTHER_SHARD)
    assert staging(model) == []
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert state(model) == ("complete",)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_of_a_load_that_fails_every_damaged_file_is_marked(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    flip(snapshot / OTHER_SHARD, 5 * MIB)
    flip(model.shared / "models--org--name/snapshots" / COMMIT / OTHER_SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match=OTHER_SHARD):
        fastload.load(REPO, options=model.options)
    assert state(model) == ("damaged", SHARD, OTHER_SHARD)
    assert staging(model) == []


def test_who_only_looks_makes_nothing(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    with pytest.raises(IntegrityError):
        fastload.verify(REPO, options=model.options)
    assert staging(model) == []
    assert (snapshot / SHARD).read_bytes() != model.files[SHARD]


def test_a_block_of_a_header_comes_once_and_counts_once(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    report = fastload.load(REPO, options=model.options).report
    assert (report.blocks_reread, report.blocks_repaired) == (1, 1)
    assert report.bytes_by_tier[f"shared:{model.shared}"] == BLOCK


def test_where_what_was_kept_is_wrong_it_comes_again(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    with fastload.stream(REPO, options=model.options) as stream:
        (kept,) = (path for path in Path("/proc/self/fd").iterdir() if is_kept(path, model))
        with kept.open("r+b") as file:
            file.write(b"wrong")
        assert_same(dict(stream), model.tensors)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


_FULL = """
import resource, signal, sys, fastload
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
options = fastload.Options(local=sys.argv[1], shared=sys.argv[2], tiers=("local", "shared"))
weights = fastload.load("org/name", options=options)
print(sum(tensor.nbytes for tensor in weights.values()), weights.report.blocks_repaired)
"""


def test_where_there_is_no_room_what_is_loaded_is_right_and_the_file_is_marked(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 5 * MIB)
    command = [sys.executable, "-c", _FULL, str(model.local), str(model.shared)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(sum(tensor.nbytes for tensor in model.tensors.values())), "1"]
    assert "stays damaged, though what was loaded is right" in run.stderr
    assert state(model) == ("damaged", SHARD)
    assert staging(model) == []


@pytest.mark.parametrize(("may_differ", "content"), [(True, b"another"), (False, b"x" * (BLOCK + 9))])
def test_one_that_became_another_file_meanwhile_is_left_alone(
    tmp_path: Path, content: bytes, *, may_differ: bool
) -> None:
    path, scratch = tmp_path / "blob", tmp_path / "staging"
    path.write_bytes(bytes(BLOCK + 9))
    wanted = WantedBlock(PlainFile(str(path), identify(path.stat())), 1, 9, [""] * 2)
    made = MendedFile(str(path), wanted, str(scratch), may_differ=may_differ)
    made.put(1, memoryview(bytes(9)))
    path.write_bytes(content)
    with pytest.raises(StoreError, match="another file is there by now"):
        made.publish(lambda _, block: block)
    made.discard()
    assert (path.read_bytes(), os.listdir(scratch)) == (content, [])


def test_a_plain_folder_is_mended_block_by_block_as_well(model: Model, tmp_path: Path) -> None:
    folder = model.recorded()
    (tmp_path / "shared").mkdir(exist_ok=True)
    other = tmp_path / "shared" / folder.name
    other.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(folder), str(other)], check=True)
    options = Options(local=str(tmp_path), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    status = os.stat(folder / SHARD)
    flip(folder / SHARD, 5 * MIB)
    os.utime(folder / SHARD, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = fastload.verify(folder, repair=True, options=options)
    assert [finding.repaired for finding in found.findings] == [True]
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


def test_what_another_load_has_mended_meanwhile_is_not_marked(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    with fastload.stream(REPO, options=model.options) as early, fastload.stream(REPO, options=model.options) as late:
        next(early)
        assert_same(dict(late), model.tensors)
    assert state(model) == ("complete",)
    assert staging(model) == []


@pytest.mark.parametrize("how", ["load", "part", "verify"])
def test_what_only_the_page_cache_has_wrong_is_not_written(
    model: Model, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The rest of a file that is mended: the load healed it by a second read, or had no need of it."""
    snapshot = model.warmed()
    shard = snapshot / SHARD
    flip(shard, 9)
    with monkeypatch.context() as patch:
        flip_reads(patch, in_page_cache(shard, 5 * MIB))
        if how == "verify":
            fastload.verify(REPO, repair=True, options=model.options)
        else:
            fastload.load(REPO, tensors=None if how == "load" else "1.0", reader="buffered", options=model.options)
    assert shard.read_bytes() == model.files[SHARD]
    assert state(model) == ("complete",)


def test_damage_that_a_partial_load_did_not_read_is_mended_with_it(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    flip(snapshot / SHARD, 5 * MIB)
    report = fastload.load(REPO, tensors="1.0", options=model.options).report
    assert (report.blocks_reread, report.blocks_repaired) == (2, 2)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_a_warm_beside_a_load_leaves_it_what_it_mends(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    with fastload.stream(REPO, options=model.options) as stream:
        next(stream)
        fastload.warm(REPO, options=model.options)
        for _ in stream:
            pass
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_of_a_process_that_is_killed_nothing_is_left(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    script = f"""
import os, signal, fastload
stream = fastload.stream({REPO!r}, options=fastload.Options(local={str(model.local)!r}, shared={str(model.shared)!r}))
next(stream)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert staging(model) == []


def test_a_child_that_was_forked_leaves_it_to_its_parent(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    stream = fastload.stream(REPO, options=model.options)
    child = os.fork()
    if not child:
        stream.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert state(model) == ("complete",)
    assert_same(dict(stream), model.tensors)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_a_disk_with_room_for_one_copy_has_room_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room for two at once: the second one is mended when the first one has taken its place."""
    model = Model(tmp_path)
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    flip(snapshot / OTHER_SHARD, 9)
    monkeypatch.setattr("fastload._fetch.mend.mended_files._MOST_OPEN", 1)
    report = fastload.load(REPO, options=model.options).report
    for name in (SHARD, OTHER_SHARD):
        assert (snapshot / name).read_bytes() == model.files[name]
    assert report.blocks_repaired == 2
    assert report.bytes_by_tier[f"shared:{model.shared}"] == BLOCK * 4  # twice for its header, and again at the end
    assert state(model) == ("complete",)


def test_a_child_can_close_it_though_a_thread_of_its_parent_is_about_it(model: Model) -> None:
    snapshot = model.warmed()
    flip(snapshot / SHARD, 9)
    stored = Root(str(model.local), LOCAL).find_commit(REPO, COMMIT)
    assert stored is not None
    files = MendedFiles(stored)
    holds, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with files._here():
            holds.set()
            may_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(len(files.close()))
    _, status = os.waitpid(child, 0)
    may_go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_made_to_mend_a_file_is_nothing_that_the_next_holder_of_a_lease_sweeps() -> None:
    assert not UNDER_LEASE.fullmatch(f"{MENDED_STEM}.{new_id()}")
