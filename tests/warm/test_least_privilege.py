"""No HOME, a foreign uid, no capabilities, umask 077, a read-only store: what needs no writing writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stored_models import COMMIT, blob_name, model_files, write_cache
from warming import Tiers, content, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "org/name"
NOBODY = 65534
UNKNOWN = 54321
"""Of whom /etc/passwd says nothing, as of the users whom clusters choose."""


def dropped(uid: int) -> list[str]:
    """What runs a command as ``uid``, without capabilities."""
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--bounding-set", "-all"]


DROPPED = dropped(NOBODY)
_UMASK = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
_PATH = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="must be root to become somebody else"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed"),
]


@pytest.fixture
def tiers() -> Iterator[Tiers]:
    """Where others may look: the folders of pytest are for their owner only."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    made = Tiers(folder)
    write_cache(made.shared, REPO, COMMIT, model_files())
    yield made
    shutil.rmtree(folder)


def as_nobody(tiers: Tiers, *words: object) -> subprocess.CompletedProcess[str]:
    """``fastload`` as uid 65534, without capabilities and HOME, under umask 077."""
    home = {"HOME", "USER", "LOGNAME"}
    return _as_user(NOBODY, {name: text for name, text in tiers.environment.items() if name not in home}, *words)


def as_unknown(tiers: Tiers, *words: object, folder: str = "/", **more: str) -> subprocess.CompletedProcess[str]:
    """``fastload`` in ``folder`` as a user whom the system does not know, who names no local tier."""
    left_out = {"HOME", "USER", "LOGNAME", "FASTLOAD_LOCAL"}
    return _as_user(
        UNKNOWN, {n: text for n, text in tiers.environment.items() if n not in left_out} | more, *words, folder=folder
    )


def _as_user(uid: int, environ: dict[str, str], *words: object, folder: str = "/") -> subprocess.CompletedProcess[str]:
    python = _find_python()
    if python is None:
        pytest.skip("nobody may not run this Python, and the system has no other one of its version")
    command = [*_UMASK, *dropped(uid), python, "-m", "fastload", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environ | _PATH, cwd=folder, timeout=60
    )


@cache
def _find_python() -> str | None:
    """This one; where it lies in root's home, the system's own, which takes the packages of this one."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        command = [*_UMASK, *DROPPED, python, "-c", "import fastload"]
        if subprocess.run(command, check=False, env=_PATH, cwd="/", stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def test_a_stored_model_loads_and_nothing_is_written(tiers: Tiers) -> None:
    tiers.warm(REPO)
    before = tree(tiers.folder)
    for words in (("load", REPO), ("resolve", REPO), ("warm", f"{REPO}@{COMMIT}"), ("inspect", REPO)):
        done = as_nobody(tiers, *words)
        assert done.returncode == 0, done.stderr
    assert tree(tiers.folder) == before


def test_a_model_on_a_mount_loads_where_local_cannot_be_written(tiers: Tiers) -> None:
    before = tree(tiers.folder)
    done = as_nobody(tiers, "load", REPO)
    assert done.returncode == 0, done.stderr
    assert tree(tiers.folder) == before


def test_warm_writes_below_its_tier_only(tiers: Tiers) -> None:
    tiers.local.mkdir()
    os.chown(tiers.local, NOBODY, NOBODY)
    before = tree(tiers.shared)
    done = as_nobody(tiers, "warm", REPO)
    assert done.returncode == 0, done.stderr
    snapshot = Path(done.stdout.strip())
    assert content(snapshot) == model_files()
    assert tree(tiers.shared) == before and sorted(os.listdir(tiers.folder)) == ["local", "shared"]
    assert all(path.lstat().st_uid == NOBODY for path in tiers.local.rglob("*"))
    assert (snapshot / "config.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("verb", ["warm", "load"])
def test_the_next_mount_serves_where_one_cannot_be_read(tiers: Tiers, verb: str) -> None:
    first = tiers.folder / "first"
    tiers.warm(REPO, "--to", first)  # with a manifest, by which it is complete and need not be looked into
    shard = "model-00001-of-00002.safetensors"
    (first / "models--org--name/blobs" / blob_name(shard, model_files()[shard])).chmod(0)
    tiers.local.mkdir()
    os.chown(tiers.local, NOBODY, NOBODY)
    tiers.more = {"FASTLOAD_SHARED": f"{first}:{tiers.shared}"}
    done = as_nobody(tiers, verb, REPO)
    assert done.returncode == 0, done.stderr
    assert f"shared:{first} was passed over" in done.stderr and f"Now from shared:{tiers.shared}" in done.stderr
    tiers.more = {"FASTLOAD_SHARED": str(first)}
    done = as_nobody(tiers, verb, REPO, "--local", tiers.local / "other")
    assert done.returncode == 15 and "Permission denied" in done.stderr, done.stderr


def test_a_target_that_cannot_be_written_says_whose_it_is_and_what_cures_it(tiers: Tiers) -> None:
    done = as_nobody(tiers, "warm", REPO)
    assert done.returncode == 15
    cure = f"mkdir -p {tiers.local} && chown 65534:65534 {tiers.local}"
    for part in ("uid 65534", "owned by uid 0, gid 0, mode 0755", cure, "fsGroup"):
        assert part in done.stderr, done.stderr
    assert "chown -R" not in done.stderr  # of the folder that happens to be there, which is not ours
    assert not tiers.local.exists()
    follow(done.stderr)
    assert as_nobody(tiers, "warm", REPO).returncode == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_what_cures_it_can_be_pasted(tiers: Tiers, *, is_there: bool) -> None:
    """By ``doctor`` too, and with a name that a shell would take apart."""
    local = tiers.folder / "it's $HOME & co"
    if is_there:
        local.mkdir()
    tiers.more = {"FASTLOAD_LOCAL": str(local)}
    follow(as_nobody(tiers, "doctor").stdout)
    assert as_nobody(tiers, "warm", REPO).returncode == 0


def follow(said: str) -> None:
    """Do what somebody is told who is root, as it stands there."""
    (command,) = (line.partition("as root: ")[2] for line in said.splitlines() if "as root: " in line)
    subprocess.run(["bash", "-ec", command], check=True)


@pytest.mark.parametrize("words", [("warm", REPO), ("doctor",)])
def test_no_cure_gives_away_what_lies_above_the_tier(tiers: Tiers, words: tuple[str, ...]) -> None:
    """In a container whose user has ``/`` for a home, the nearest folder that is there is that."""
    done = as_unknown(tiers, *words, HOME=str(tiers.folder))
    hub = tiers.folder / ".cache" / "huggingface" / "hub"
    said = done.stdout + done.stderr
    assert f"mkdir -p {hub} && chown {UNKNOWN}:{UNKNOWN} {hub}" in said, said
    assert said.count("chown") == 1 and "FASTLOAD_LOCAL" in said


def test_a_tier_of_somebody_else_is_what_the_cure_gives_away(tiers: Tiers) -> None:
    tiers.local.mkdir()
    for words in (("warm", REPO), ("doctor",)):
        done = as_nobody(tiers, *words)
        assert f"as root: chown -R {NOBODY}:{NOBODY} {tiers.local}\n" in done.stdout + done.stderr


@pytest.mark.parametrize("shut", ["", "models--org--name"])
def test_a_folder_of_this_users_own_is_opened_and_not_given_to_him(tiers: Tiers, shut: str) -> None:
    """Made under a umask of 0222, say."""
    folder = tiers.local / shut
    (tiers.local / "models--org--name/snapshots").mkdir(parents=True)
    for path in (tiers.local, *tiers.local.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    folder.chmod(0o555)
    done = as_nobody(tiers, "warm", REPO)
    assert done.returncode == 15, done.stderr
    assert f": chmod u+rwx {folder}\n" in done.stderr and "chown" not in done.stderr, done.stderr
    if not shut:
        assert f": chmod u+rwx {folder}\n" in as_nobody(tiers, "doctor").stdout
    folder.chmod(0o755)
    assert as_nobody(tiers, "warm", REPO).returncode == 0


def test_without_a_home_there_is_no_local_tier(tiers: Tiers) -> None:
    """And no folder that is called ``~``; what needs none goes on."""
    inside = tiers.folder / "inside"
    inside.mkdir(mode=0o777)
    inside.chmod(0o777)
    done = as_unknown(tiers, "warm", REPO, folder=str(inside))
    assert done.returncode == 2, done.stderr
    assert "HOME is not set" in done.stderr and "FASTLOAD_LOCAL" in done.stderr
    assert not list(inside.iterdir())
    assert as_unknown(tiers, "load", REPO, folder=str(inside)).returncode == 0
    for words in (("ls",), ("bench",), ("pin", REPO), ("prune",)):
        done = as_unknown(tiers, *words, folder=str(inside))
        assert done.returncode == (0 if words == ("ls",) else 2), done.stderr
    done = as_unknown(tiers, "doctor", REPO, folder=str(inside))
    assert done.returncode == 0 and "warning: there is no local tier" in done.stdout, done.stdout
    assert not list(inside.iterdir())


def test_a_repo_of_somebody_else_in_a_tier_of_ours(tiers: Tiers) -> None:
    tiers.local.mkdir(mode=0o777)
    tiers.local.chmod(0o777)
    (tiers.repo(REPO) / "blobs").mkdir(parents=True)
    done = as_nobody(tiers, "warm", REPO)
    assert done.returncode == 15 and "models--org--name" in done.stderr and "owned by uid 0" in done.stderr


@pytest.mark.parametrize("verb", ["warm", "rm"])
def test_a_read_only_file_system(tiers: Tiers, verb: str) -> None:
    tiers.local.mkdir()
    if verb == "rm":
        tiers.warm(REPO)
    mount = f"mount --bind {tiers.local} {tiers.local} && mount -o remount,bind,ro {tiers.local}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-m", "fastload"]
    done = subprocess.run(
        [*command, verb, REPO], capture_output=True, text=True, check=False, env=tiers.environment, timeout=60
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"may not mount here: {done.stderr}")
    assert done.returncode == 15 and "read-only" in done.stderr and "chown" not in done.stderr
