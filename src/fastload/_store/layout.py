"""Where things lie below a cache root: the layout of the Hugging Face hub's cache, and what fastload adds to it.

::

    <root>/models--org--name/
        blobs/<sha256 or git-sha1>           the bytes
        refs/<revision>                      the commit it means
        snapshots/<commit>/<path>            links to blobs
        trees/<commit>.json                  the hub client's listing; evidence, never written by us
        .fastload/manifests/<commit>.json    ours, as are the others of OUR_FOLDERS
    <root>/.locks/fastload/                  leases; the hub client ignores the folder

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Pure names: nothing here touches a file.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

from fastload._verify.path import OURS

OUR_FOLDERS = ("manifests", "stamps", "pins", "listed", "reports", "marks", "journals", "staging")
"""Those in ``.fastload/``."""
BENCH_PREFIX = "fastload-bench-"
"""Of a folder with a model that was made to measure with, on the local tier in :func:`lease_folder`."""
_PREFIX = "models--"


def repo_folder(root: str, repo: str) -> str:
    """The folder of ``repo`` below ``root``."""
    return os.path.join(root, _PREFIX + repo.replace("/", "--"))


def find_repo(folder_name: str) -> str | None:
    """The repo whose folder is called so; None for any other folder."""
    if not folder_name.startswith(_PREFIX) or len(folder_name) == len(_PREFIX):
        return None
    return folder_name.removeprefix(_PREFIX).replace("--", "/")


def lease_folder(root: str) -> str:
    """Where a tier's leases are."""
    return os.path.join(root, ".locks", "fastload")


def link_to_blob(path: str, name: str) -> str:
    """What the link at ``snapshots/<commit>/<path>`` says, as the hub's tools write it: wherever the cache is moved."""
    return posixpath.join(*[".."] * (path.count("/") + 2), "blobs", name)


@dataclass(frozen=True, slots=True)
class RepoLayout:
    """The places in the folder of one repo."""

    folder: str

    @property
    def blobs(self) -> str:
        """Where the bytes are, by digest."""
        return os.path.join(self.folder, "blobs")

    @property
    def snapshots(self) -> str:
        """Where a folder for each commit is."""
        return os.path.join(self.folder, "snapshots")

    @property
    def refs(self) -> str:
        """Where a file for each moving revision is."""
        return os.path.join(self.folder, "refs")

    def snapshot(self, commit: str) -> str:
        """The folder of one commit."""
        return os.path.join(self.snapshots, commit)

    def ref(self, revision: str) -> str:
        """The file that says which commit ``revision`` means."""
        return os.path.join(self.refs, revision)

    def blob(self, digest: str) -> str:
        """The file of that digest."""
        return os.path.join(self.blobs, digest)

    def tree(self, commit: str) -> str:
        """The hub client's listing of one commit."""
        return os.path.join(self.folder, "trees", f"{commit}.json")

    def ours(self, *parts: str) -> str:
        """A place of fastload's own."""
        return os.path.join(self.folder, OURS, *parts)

    def manifest(self, commit: str) -> str:
        """The manifest of one commit."""
        return self.ours("manifests", f"{commit}.json")

    def stamp(self, commit: str) -> str:
        """What the files of one commit looked like when they were published."""
        return self.ours("stamps", f"{commit}.json")

    def mark(self, commit: str) -> str:
        """Which files of one commit were found damaged."""
        return self.ours("marks", f"{commit}.json")

    def pin(self, commit: str) -> str:
        """The file that keeps one commit from being evicted."""
        return self.ours("pins", commit)

    def listed(self, commit: str, list_id: str) -> str:
        """The file that says that a resident warmer's list names one commit."""
        return self.ours("listed", f"{commit}.{list_id}")

    def reports(self, commit: str) -> str:
        """What the last loads of one commit reported."""
        return self.ours("reports", f"{commit}.jsonl")
