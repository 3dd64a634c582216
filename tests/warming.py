"""``fastload warm`` as a process, from a mount to a local tier, and what both look like afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from huggingface_hub import scan_cache_dir

from fastload._verify.manifest import Manifest, parse_manifest
from forked import run_fastload, start_fastload
from writing import pack

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path

MIB = 1 << 20
FASTLOAD = [sys.executable, "-m", "fastload"]


def random_bytes(nbytes: int, seed: int) -> bytes:
    """No two blocks alike."""
    return hashlib.shake_128(str(seed).encode()).digest(nbytes)


def large_shard(nbytes: int, seed: int) -> bytes:
    """A valid shard with so many bytes of one tensor."""
    return pack({f"layer.{seed}": ("U8", [nbytes], random_bytes(nbytes, seed))})


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would choose tiers, and without network."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("FASTLOAD_", "HF_", "XDG_"))}
    off = ("XET", "PROGRESS_BARS", "TELEMETRY", "UPDATE_CHECK")  # the command looks for a newer one of itself, on PyPI
    return {**kept, **{f"HF_HUB_DISABLE_{what}": "1" for what in off}, **more}


@dataclass
class Tiers:
    """A local tier and a mount below one folder."""

    folder: Path
    tiers: str = "local,shared"
    more: dict[str, str] = field(default_factory=dict)

    @property
    def local(self) -> Path:
        """The local tier's root, which is made by whoever warms."""
        return self.folder / "local"

    @property
    def shared(self) -> Path:
        """The mount's root."""
        return self.folder / "shared"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that shall see both."""
        names = {"FASTLOAD_LOCAL": str(self.local), "FASTLOAD_SHARED": str(self.shared), "FASTLOAD_TIERS": self.tiers}
        return environment(**(names | self.more))

    def run(self, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """``fastload`` with these words, to its end."""
        return run_fastload(words, self.environment | environ, timeout=120)

    def start(self, *words: object, **environ: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return start_fastload(words, self.environment | environ)

    def warm(self, *words: object, **environ: str) -> Path:
        """``fastload warm``, which must succeed; the folder it prints."""
        done = self.run("warm", *words, **environ)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1, done.stdout
        return type(self.folder)(done.stdout.strip())

    def repo(self, name: str) -> Path:
        """The folder of a repo on the local tier."""
        return self.local / f"models--{name.replace('/', '--')}"

    def manifest(self, name: str, commit: str) -> Manifest:
        """The manifest on the local tier."""
        path = self.repo(name) / ".fastload" / "manifests" / f"{commit}.json"
        return parse_manifest(path.read_bytes(), path=str(path))

    def wait_staged(self, name: str, folder: Path | None = None) -> None:
        """Until a block is on its way in, of the repo ``name`` or into a plain ``folder``."""
        journals = (folder or self.repo(name)) / ".fastload" / "journals"
        eventually(lambda: any(has_block(path) for path in list_there(journals)))

    def staged(self, name: str) -> list[str]:
        """What lies in staging/ and journals/."""
        ours = self.repo(name) / ".fastload"
        return sorted(
            str(path.relative_to(ours))
            for part in (ours / "staging", ours / "journals")
            for path in (part.iterdir() if part.exists() else ())
        )


def list_there(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def has_block(journal: Path) -> bool:
    """Whether it names one; it may be gone with its file at any moment."""
    with suppress(FileNotFoundError):
        return b"\n" in journal.read_bytes().split(b"\n", 1)[-1]
    return False


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for it to become true: a moment as a rule, longer on a machine that is busy."""
    end_s = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end_s, "it never was so"
        time.sleep(0.02)


def wait_told(process: subprocess.Popen[str], words: str) -> str:
    """Until a process has said so on stderr; that line. It must not be a process that says nothing more."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended, and never said {words!r}")


def content(folder: Path) -> dict[str, bytes]:
    """All files below a snapshot, but what tools keep there for themselves."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".fastload" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def tree(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Inode, size, mtime and ctime of all there is: what differs was written."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def check_cache(root: Path, whole: Mapping[str, bytes]) -> int:
    """The hub's client finds no fault, and every snapshot it sees is whole; how many there are."""
    if not root.exists():
        return 0
    info = scan_cache_dir(root)
    assert info.warnings == []
    revisions = [revision for repo in info.repos for revision in repo.revisions if revision.files]
    for revision in revisions:
        assert content(revision.snapshot_path) == dict(whole)
    return len(revisions)


def as_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object that is all of stdout."""
    parsed = json.loads(done.stdout)
    assert isinstance(parsed, dict)
    return parsed
