"""Caches written by hand, as fastload and as the hub's client leave them, and the hub's own judgement of them."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub import scan_cache_dir

from fastload._store.layout import RepoLayout, repo_folder
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload._verify.manifest import Manifest, ManifestFile, dump_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLD_S = 3600.0
"""Longer ago than what counts as just used."""
BLOB_BYTES = 64 << 10  # 64 KiB: whole pages, so that what files take of the disk is what they hold


def commit_of(number: int) -> str:
    """A commit."""
    return hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()


def content_of(seed: int) -> bytes:
    """The content of a blob."""
    return hashlib.shake_256(b"%d" % seed).digest(BLOB_BYTES)


@dataclass(frozen=True)
class Cache:
    """A root in the hub's layout."""

    root: Path

    def layout(self, repo: str) -> RepoLayout:
        """Where the repo lies."""
        return RepoLayout(repo_folder(str(self.root), repo))

    def add(
        self,
        repo: str,
        number: int,
        files: Mapping[str, int],
        *,
        source: str | None = "hub",
        ref: str | None = "main",
        used_s_ago: float = OLD_S,
    ) -> str:
        """A snapshot; ``files`` are seeds of content by path. Without a ``source`` another tool has brought it."""
        layout, commit = self.layout(repo), commit_of(number)
        entries = []
        for path, seed in sorted(files.items()):
            content = content_of(seed)
            name = hashlib.sha256(content).hexdigest()
            _write(layout.blob(name), content)
            full = os.path.join(layout.snapshot(commit), path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.symlink(os.path.relpath(layout.blob(name), os.path.dirname(full)), full)
            blocks = tuple(block_digest(content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES))
            entries.append(ManifestFile(path, len(content), name, None, blocks))
        if ref is not None:
            _write(layout.ref(ref), commit.encode())
        if source is not None:
            _write(layout.manifest(commit), dump_manifest(Manifest(repo, commit, source, tuple(entries))))
            _write(layout.stamp(commit), b"{}")
            self.use(repo, commit, used_s_ago)
        return commit

    def use(self, repo: str, commit: str, s_ago: float) -> None:
        """The snapshot was used then."""
        then_s = time.time() - s_ago
        for path in (self.layout(repo).stamp(commit), self.layout(repo).manifest(commit)):
            os.utime(path, (then_s, then_s))

    def has(self, repo: str, commit: str) -> bool:
        """The snapshot is there, with all that it links to."""
        folder = self.layout(repo).snapshot(commit)
        paths = [os.path.join(above, name) for above, _, names in os.walk(folder) for name in names]
        assert all(map(os.path.isfile, paths))
        return bool(paths)

    def blobs(self, repo: str) -> set[str]:
        """The names of all blobs."""
        folder = self.layout(repo).blobs
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()

    def check(self) -> set[tuple[str, str]]:
        """The hub's client finds the cache in order, and nothing that no snapshot needs; all snapshots."""
        self.check_valid()
        info = scan_cache_dir(self.root)
        for repo in info.repos:
            linked = {file.blob_path.name for revision in repo.revisions for file in revision.files}
            assert linked == self.blobs(repo.repo_id)
        return {(repo.repo_id, revision.commit_hash) for repo in info.repos for revision in repo.revisions}

    def check_valid(self) -> None:
        """The hub's client finds the cache in order: no ref without its snapshot, no link that leads nowhere."""
        info = scan_cache_dir(self.root)
        assert info.warnings == []
        names = {name for name in os.listdir(self.root) if not name.startswith(".")}
        assert {repo.repo_path.name for repo in info.repos} == names


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
