"""``warm`` that is ended before its end: by SIGKILL at any moment, SIGTERM, Ctrl-C, a full disk."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import scan_cache_dir

import kill_sweep
from fastload import Options, resolve, warm
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import ModelNotFoundError
from stored_models import COMMIT, OTHER_COMMIT, model_files, write_cache, write_folder
from warming import FASTLOAD, MIB, Tiers, as_json, check_cache, content, large_shard, wait_told

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"
STEPS = 64
"""More than a removal takes."""


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    shards = {f"model-0000{n}-of-00003.safetensors": large_shard(12 * MIB, n) for n in (1, 2, 3)}
    return {**shards, "config.json": b"{}"}


def bytes_read(command: list[str], environment: dict[str, str], below: Path, log: Path) -> int:
    """What the command read of files below a folder; it must succeed."""
    calls = "trace=read,pread64,preadv,preadv2"
    traced = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", calls, *command]
    subprocess.run(traced, env=environment, check=True, capture_output=True, timeout=120)
    found = re.findall(rf"\(\d+<{re.escape(str(below))}/[^>]*/blobs/.*= (\d+)$", log.read_text(), re.MULTILINE)
    return sum(map(int, found))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path, files: dict[str, bytes]) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    whole_bytes = sum(map(len, files.values()))
    moments = random.Random(5)  # noqa: S311 - moments, no secrets
    for number in range(20):
        tiers = Tiers(tmp_path / f"round{number}", more={"FASTLOAD_SHARED": str(tmp_path / "shared")})
        warming = tiers.start("warm", REPO, "--max-rate", "80Mi")
        time.sleep(0.25 + moments.random() * 0.6)
        warming.kill()
        warming.communicate()
        seen = check_cache(tiers.local, files)
        # The ref is written after the snapshot: a kill between them leaves a snapshot that only its commit finds.
        assert is_resolved(f"{REPO}@{COMMIT}", tiers.local) == bool(seen)
        assert seen or not is_resolved(REPO, tiers.local)
        staged_bytes = count_staged_bytes(tiers.repo(REPO) / ".fastload/journals")
        if number % 4 == 0 and not seen:
            command = [*FASTLOAD, "warm", REPO]
            read_bytes = bytes_read(command, tiers.environment, tmp_path / "shared", tmp_path / "log")
            # All blocks that a journal names are there, so that nothing but headers is read twice.
            assert read_bytes <= whole_bytes - staged_bytes + 2 * MIB
        else:
            warm(
                REPO,
                options=Options(local=str(tiers.local), shared=str(tmp_path / "shared"), tiers=("local", "shared")),
            )
        assert check_cache(tiers.local, files) == 1
        assert tiers.staged(REPO) == []
        shutil.rmtree(tiers.folder)


def is_resolved(model: str, local: Path) -> bool:
    try:
        return resolve(model, options=Options(local=str(local), tiers=("local",))).complete
    except ModelNotFoundError:
        return False


def count_staged_bytes(journals: Path) -> int:
    """What is said to be there."""
    total_bytes = 0
    for path in journals.iterdir() if journals.exists() else ():
        head, *lines = path.read_bytes().split(b"\n")[:-1] or [b'{"size": 0}']
        size = json.loads(head)["size"]
        offsets = {int(line.split()[0]) * BLOCK_BYTES for line in lines if line[:1].isdigit()}
        total_bytes += sum(min(BLOCK_BYTES, size - offset) for offset in offsets)
    return total_bytes


def test_what_a_writer_on_another_machine_left_is_copied(tmp_path: Path, files: dict[str, bytes]) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, files)
    warming = tiers.start("warm", REPO, "--max-rate", "24Mi")
    tiers.wait_staged(REPO)
    warming.kill()
    warming.communicate()
    ours = tiers.repo(REPO) / ".fastload"
    assert any((ours / "journals").iterdir())
    for journal in (ours / "journals").iterdir():
        journal.write_bytes(re.sub(rb'"boot_id": "[^"]*"', b'"boot_id": "elsewhere"', journal.read_bytes()))
    held = [path.open("rb") for path in (ours / "staging").iterdir() if path.is_file()]
    inodes = {os.fstat(file.fileno()).st_ino: os.fstat(file.fileno()).st_mtime_ns for file in held}
    tiers.warm(REPO)
    assert {os.fstat(file.fileno()).st_ino: os.fstat(file.fileno()).st_mtime_ns for file in held} == inodes
    assert not {path.stat().st_ino for path in (tiers.repo(REPO) / "blobs").iterdir()} & inodes.keys()
    for file in held:
        file.close()
    assert check_cache(tiers.local, files) == 1
    assert tiers.staged(REPO) == []


def test_a_plain_folder_goes_on_too_and_leaves_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    tiers = Tiers(tmp_path)
    write_folder(tiers.shared / "plain", files)
    served = tmp_path / "served"
    for words, where in ((("plain",), None), (("plain", "--plain", served), served)):
        warming = tiers.start("warm", *words, "--max-rate", "24Mi")
        tiers.wait_staged("plain", where)
        warming.kill()
        warming.communicate()
        assert content(tiers.warm(*words)) == files
    assert tiers.staged("plain") == []
    ours = tmp_path / "served/.fastload"
    assert not os.listdir(ours / "staging") and not os.listdir(ours / "journals")


def test_sigterm_as_the_first_process(tmp_path: Path, files: dict[str, bytes]) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, files)
    command = ["unshare", "--pid", "--fork", "--kill-child", *FASTLOAD, "warm", REPO, "--max-rate", "2Mi"]
    if subprocess.run([*command[:4], "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make a namespace of processes here")
    taken_s: list[float] = []
    while len(taken_s) < 3 and min(taken_s, default=2.0) >= 2.0:  # again where the machine was busy
        warming = subprocess.Popen(command, env=tiers.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        tiers.wait_staged(REPO)
        (child,) = children(warming.pid)
        begin_s = time.monotonic()
        os.kill(child, signal.SIGTERM)
        warming.communicate(timeout=30)
        taken_s.append(time.monotonic() - begin_s)
        assert warming.returncode == 143
        assert check_cache(tiers.local, files) == 0
    assert min(taken_s) < 2.0, "as promised; to the end it would take 18"
    tiers.warm(REPO)
    assert tiers.staged(REPO) == []


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_ctrl_c(tmp_path: Path, files: dict[str, bytes]) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, files)
    warming = tiers.start("warm", REPO, "--max-rate", "10Mi", "--json")
    tiers.wait_staged(REPO)
    warming.send_signal(signal.SIGINT)
    out, err = warming.communicate(timeout=30)
    assert warming.returncode == 130
    assert '"exit_code": 130' in out and err.splitlines()[-1] == "fastload: interrupted"
    assert not list((tiers.local / ".locks/fastload").glob("org--name"))


def test_sigterm_while_it_waits_for_another(tmp_path: Path, files: dict[str, bytes]) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, files)
    first = tiers.start("warm", REPO, "--max-rate", "1Mi")
    tiers.wait_staged(REPO)
    second = tiers.start("warm", REPO)
    wait_told(second, "waiting for pid")
    second.terminate()
    second.communicate(timeout=20)
    assert second.returncode == 143
    first.terminate()
    first.communicate(timeout=20)
    assert first.returncode == 143


@pytest.mark.skipif(os.geteuid() != 0, reason="must be root to mount")
def test_a_full_disk_ends_it_with_numbers_and_a_larger_one_lets_it_go_on(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, files)
    tiers.local.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(tiers.local)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        done = tiers.run("warm", REPO, "--json")
        assert done.returncode == 14
        assert f"{sum(map(len, files.values())):,}" in done.stderr and re.search(
            r"[\d,]{6,} are missing", done.stderr
        ), done.stderr
        assert as_json(done)["error"]["path"] == str(tiers.local)
        assert check_cache(tiers.local, files) == 0
        assert not tiers.repo(REPO).exists(), "nothing fitted, so nothing is left"
        subprocess.run(["mount", "-o", "remount,size=80m", str(tiers.local)], check=True)
        tiers.warm(REPO)
        assert check_cache(tiers.local, files) == 1
    finally:
        subprocess.run(["umount", "-l", str(tiers.local)], check=True)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_disk_that_runs_full_on_the_way(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, model_files(shard_bytes=9 * MIB))
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=pwrite64:error=ENOSPC:when=2+"]
    command = [*inject, *FASTLOAD, "warm", REPO]
    done = subprocess.run(command, env=tiers.environment, check=False, capture_output=True, text=True)
    assert done.returncode == 14 and "no space left" in done.stderr
    assert content(tiers.warm(REPO)) == model_files(shard_bytes=9 * MIB)
    assert tiers.staged(REPO) == []


def test_after_a_removal_that_was_killed_at_any_step_the_model_comes_at_once(tmp_path: Path) -> None:
    """Its rest is cleared away by who brings the next one, and with it the folders that this one needs."""
    for commit in (COMMIT, OTHER_COMMIT):
        write_cache(tmp_path / "shared", REPO, commit, model_files(seed=len(commit)))
    there = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    warm(f"{REPO}@{COMMIT}", options=there)
    with kill_sweep.copied(tmp_path / "local", STEPS) as roots:
        assert 8 < kill_sweep.sweep(f"remove {REPO} {COMMIT}", roots) < STEPS
        for number, root in enumerate(roots):
            commit = (COMMIT, OTHER_COMMIT)[number % 2]
            snapshot = warm(f"{REPO}@{commit}", options=replace(there, local=str(root)))
            assert snapshot.complete
            assert scan_cache_dir(root).warnings == []
