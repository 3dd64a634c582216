"""What a hub holds: repositories, their commits and refs, and what it knows of each file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stored_models import git_sha1, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

_LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".onnx")
_LFS_FROM_BYTES = 10 << 20  # 10 MiB


@dataclass(frozen=True)
class HubFile:
    """One file of a commit, with the digests that a hub publishes."""

    path: str
    content: bytes
    sha256: str
    git_sha1: str

    @property
    def is_lfs(self) -> bool:
        """True for what git holds only a pointer to."""
        return self.path.endswith(_LFS_SUFFIXES) or len(self.content) > _LFS_FROM_BYTES

    @property
    def etag(self) -> str:
        """As the hub sends it, without quotes."""
        return self.sha256 if self.is_lfs else self.git_sha1

    def entry(self) -> dict[str, object]:
        """As a tree listing shows it."""
        entry: dict[str, object] = {"type": "file", "path": self.path, "size": len(self.content), "oid": self.git_sha1}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Repo:
    """One repository. ``files`` is its first commit, on ``main``; :meth:`push` makes another."""

    files: Mapping[str, bytes]
    is_gated: bool = False
    is_private: bool = False
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict, init=False)
    refs: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.push(self.files)

    def push(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Move ``ref`` to a commit of exactly ``files``, and return it."""
        made = {path: _make_file(path, content) for path, content in sorted(files.items())}
        names = json.dumps([[file.path, file.sha256] for file in made.values()])
        commit = hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = made
        self.refs[ref] = commit
        return commit

    @property
    def commit(self) -> str:
        """What ``main`` means."""
        return self.refs["main"]

    def find_commit(self, revision: str) -> str | None:
        """The commit that ``revision`` means here."""
        return revision if revision in self.commits else self.refs.get(revision)

    def tree(self, commit: str) -> list[dict[str, object]]:
        """All entries of a commit, folders too."""
        files = self.commits[commit]
        above = {path[:cut] for path in files for cut in range(len(path)) if path[cut] == "/"}
        folders: list[dict[str, object]] = [
            {"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(above)
        ]
        return [*folders, *(file.entry() for file in files.values())]


def _make_file(path: str, content: bytes) -> HubFile:
    return HubFile(path, content, sha256(content), git_sha1(content))
