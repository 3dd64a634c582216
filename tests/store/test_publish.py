"""Publishing: after a kill at any system call, what is visible is what was there or the whole of what comes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import scan_cache_dir

import fastload
from fastload import Options, warm
from fastload._store.admit import publish
from fastload._store.filesystem import exchange
from fastload._store.folder_offer import read_manifest
from fastload._store.keep.usage import is_brought
from fastload._store.layout import RepoLayout, repo_folder
from fastload._store.root import Root
from fastload._tier import LOCAL
from stored_models import COMMIT, model_files, write_cache
from warming import large_shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPO = "org/name"
WARM = """
import fastload, sys
fastload.warm(sys.argv[1], to=sys.argv[2], options=fastload.Options(shared=sys.argv[3], tiers=("shared",)))
"""
MOMENTS = [("rename", 1), ("rename", 3), ("rename", 4), ("rename", 5), ("rename", 6), ("renameat2", 1), ("fsync", 9)]
"""The probe's rename, the blobs', the manifest's and stamp's, the folder's; the exchange."""


def killed_at(call: str, number: int, target: Path, shared: Path) -> bool:
    """Warm, killed at that call; False if it never came to that."""
    inject = f"inject={call}:signal=KILL:when={number}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject, sys.executable, "-c", WARM]
    done = subprocess.run([*command, REPO, str(target), str(shared)], capture_output=True, check=False, timeout=60)
    return done.returncode != 0


def observe(root: Path, whole: dict[str, bytes]) -> None:
    """Nothing visible that is not whole, to the hub's client and to us."""
    if not (root / "models--org--name").exists():
        return
    assert scan_cache_dir(root).warnings == []
    stored = Root(str(root), LOCAL).find_commit(REPO, COMMIT)
    if stored is not None and stored.is_complete:
        there = {name: (root / stored.folder / name).read_bytes() for name in os.listdir(stored.folder)}
        assert whole.items() <= there.items()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "into-an-existing-folder"])
def test_killed_between_any_two_steps(tmp_path: Path, is_there: bool) -> None:  # noqa: FBT001 - a parameter of the test
    files = {"config.json": b"{}", "model.safetensors": model_files()["model-00001-of-00002.safetensors"]}
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    kills = 0
    for call, number in MOMENTS:
        target = tmp_path / f"{call}-{number}"
        if is_there:
            write_cache(target, REPO, COMMIT, {"config.json": b"{}"})
        kills += killed_at(call, number, target, tmp_path / "shared")
        observe(target, files)
        warm(REPO, to=str(target), options=Options(shared=str(tmp_path / "shared"), tiers=("shared",)))
        observe(target, files)
        ours = target / "models--org--name/.fastload"
        assert not os.listdir(ours / "staging")
        assert not os.listdir(ours / "journals")
    assert kills >= 5


def died_at(step: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that is killed right before its ``step``-th change of a folder; False: it had fewer."""
    child = os.fork()
    if not child:
        steps = count(1)

        def look(event: str, _: object) -> None:
            if event in {"os.rename", "shutil.rmtree"} and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(look)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_between_any_two_steps_of_a_second_wish(tmp_path: Path) -> None:
    """What says that both are met is there only where both are.

    Between the folder and its manifest nobody can tell who brought what came: it is served, and never evicted then.
    """
    files = {"config.json": b"{}", "model.safetensors": model_files()["model-00001-of-00002.safetensors"]}
    shared, warmed = tmp_path / "shared", tmp_path / "warmed"
    write_cache(shared, REPO, COMMIT, {**files, "m.bin": b"bin", "m.gguf": b"gguf"})
    options = Options(shared=str(shared), tiers=("shared",))

    def bring(target: Path, ending: str) -> str:
        return warm(f"{REPO}@{COMMIT}", to=str(target), include=f"*.{ending}", options=options).path

    bring(warmed, "bin")
    disowned: list[int] = []
    for step in count(1):
        target = tmp_path / str(step)
        shutil.copytree(warmed, target, symlinks=True)
        if not died_at(step, partial(bring, target, "gguf")):
            break
        observe(target, files)
        for ending in ("bin", "gguf"):
            assert os.path.exists(os.path.join(bring(target, ending), f"m.{ending}"))
        layout = RepoLayout(repo_folder(str(target), REPO))
        manifest = read_manifest(layout, COMMIT)
        assert manifest is not None
        assert [file.path for file in manifest.files] == ["config.json", "m.bin", "m.gguf", "model.safetensors"]
        disowned += [] if is_brought(str(target), layout, COMMIT) else [step]
    assert step > 6
    assert len(disowned) <= 2


def test_readers_are_served_at_each_step_of_a_second_wish(tmp_path: Path) -> None:
    """The mount may not be written by whoever loads: what a manifest named too early would be lost to him for good."""
    hub, warmed = tmp_path / "hub", tmp_path / "warmed"
    names = ("x1.safetensors", "x2.safetensors")
    write_cache(hub, REPO, COMMIT, {name: large_shard(100 + number, number) for number, name in enumerate(names)})
    options = Options(shared=str(hub), tiers=("shared",))
    warm(REPO, to=str(warmed), exclude="x2*", options=options)
    served_tensors: list[int] = []
    for step in count(1):
        target = tmp_path / str(step)
        shutil.copytree(warmed, target, symlinks=True)
        has_died = died_at(step, partial(warm, REPO, to=str(target), options=options))
        here = Options(local=str(tmp_path / "none"), shared=str(target), tiers=("local", "shared"), write_through="off")
        served_tensors.append(len(fastload.load(REPO, verify="require", options=here)))
        if not has_died:
            break
    assert served_tensors == sorted(served_tensors)
    assert set(served_tensors) == {1, 2}


@pytest.fixture
def built(tmp_path: Path) -> tuple[str, str]:
    """A folder about to be published, and what is in its place."""
    new, old = tmp_path / "new", tmp_path / "old"
    for folder, text in ((new, "new"), (old, "old")):
        (folder / "sub").mkdir(parents=True)
        for name in ("config.json", "a.index.json", "b", "sub/c"):
            (folder / name).symlink_to(f"{text}-{name.replace('/', '-')}")
    (old / "theirs").write_text("real")
    (old / "sub/link").symlink_to("anywhere")
    return str(new), str(old)


def test_an_existing_folder_is_exchanged_with_what_others_put_there(built: tuple[str, str]) -> None:
    new, old = built
    publish._rename_folder(new, old)
    check_merged(old)


def test_without_exchange_link_by_link(built: tuple[str, str]) -> None:
    new, old = built
    publish._link_one_by_one(new, old)
    check_merged(old)


def check_merged(folder: str) -> None:
    for name in ("config.json", "a.index.json", "b", "sub/c"):
        assert os.readlink(os.path.join(folder, name)).startswith("new-")
    with open(os.path.join(folder, "theirs")) as file:
        assert file.read() == "real"
    assert os.readlink(os.path.join(folder, "sub/link")) == "anywhere"


def test_exchange_swaps_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/inside").touch()
    assert exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b/inside").exists()
