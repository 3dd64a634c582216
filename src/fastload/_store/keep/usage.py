"""Who needs which blob: the snapshots of a repo, what they link to, and which of them fastload brought.

A blob may serve several snapshots, of fastload and of other tools. So what removing a snapshot frees is not its size,
and whether a blob may go is never read from one snapshot alone. What is not understood counts as needed.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from fastload._read.file import regular_only
from fastload._store.admit.coming import find_brought
from fastload._store.containment import check_repo, leads_out
from fastload._store.folder_offer import read_manifest, read_manifest_file
from fastload._store.keep.disk import count_disk_bytes, find_inode, find_mtime_ns, list_folder, walk
from fastload._store.keep.repo_usage import RepoUsage
from fastload._store.layout import RepoLayout, find_repo
from fastload._store.ref import is_commit
from fastload._tier import shared_tier
from fastload._verify.trust import MADE_HERE
from fastload.errors import FormatError, StoreError, UnsupportedError
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._verify.manifest import Manifest

_TAIL_BYTES = 32 << 10  # 32 KiB: a manifest's source has at most 4096 characters
_SOURCE = re.compile(rb'"schema":1,"source":(?P<source>"(?:[^"\\]|\\.)*")\}\Z')


def list_repos(root: str) -> list[tuple[str, RepoLayout]]:
    """The repos below ``root``, by name.

    Raises:
        StoreError: it cannot be read.
    """
    found = [(find_repo(name), RepoLayout(os.path.join(root, name))) for name in list_folder(root)]
    return [(repo, layout) for repo, layout in found if repo is not None and _is_here(root, layout)]


def _is_here(root: str, layout: RepoLayout) -> bool:
    """True if it is a folder of this tier: what lies where a link leads out of it is not to be counted or evicted."""
    if not os.path.isdir(layout.folder) or leads_out(layout.folder, root):
        return False
    try:
        check_repo(layout)
    except StoreError:
        return False
    return True


def scan_root(root: str) -> list[RepoUsage]:
    """All repos below ``root`` but those of which something cannot be read: another user's, where nothing may go.

    Raises:
        StoreError: the root itself cannot be read.
    """
    usages: list[RepoUsage] = []
    for repo, layout in list_repos(root):
        with contextlib.suppress(StoreError):
            usages.append(scan_repo(root, repo, layout))
    return usages


def count_kept_bytes(root: str) -> int:
    """What fastload keeps below ``root``, files on their way in included.

    Raises:
        StoreError: something there cannot be read.
    """
    return sum(usage.count_kept_bytes() for usage in scan_root(root))


def scan_repo(root: str, repo: str, layout: RepoLayout) -> RepoUsage:
    """One repo.

    Raises:
        StoreError: something there cannot be read, and might need any blob.
    """
    blobs = {name: find_inode(layout.blob(name)) for name in list_folder(layout.blobs)}
    commits = list_snapshots(layout)
    brought = {commit: manifest for commit in commits if (manifest := _read_brought(root, layout, commit))}
    return RepoUsage(
        repo=repo,
        layout=layout,
        links={commit: _find_links(layout, commit, blobs) for commit in commits},
        own_bytes={commit: count_disk_bytes(layout.snapshot(commit)) for commit in commits},
        blob_bytes={name: count_disk_bytes(layout.blob(name)) for name in blobs},
        staged_bytes=count_disk_bytes(layout.ours("staging")),
        told={commit: _name_blobs(manifest) for commit, manifest in brought.items()},
    )


def list_snapshots(layout: RepoLayout) -> list[str]:
    """The names of all snapshot folders, whoever made them.

    Raises:
        StoreError: they cannot be listed.
    """
    return [name for name in list_folder(layout.snapshots) if os.path.isdir(layout.snapshot(name))]


def find_needed_blobs(layout: RepoLayout) -> set[str]:
    """The blobs that any snapshot of the repo needs.

    Raises:
        StoreError: something cannot be read, and might need any of them.
    """
    blobs = {name: find_inode(layout.blob(name)) for name in list_folder(layout.blobs)}
    return {name for commit in list_snapshots(layout) for name in _find_links(layout, commit, blobs)}


def find_linked_blobs(layout: RepoLayout) -> set[str]:
    """The blobs that any link of a snapshot of the repo names.

    Raises:
        StoreError: a folder cannot be read.
    """
    return {
        name for commit in list_snapshots(layout) for name in find_named_links(layout, layout.snapshot(commit), commit)
    }


def find_told_blobs(manifest: str) -> frozenset[str]:
    """What the blobs of the files in the manifest at that path are called; none where it says nothing to rely on."""
    try:
        found = read_manifest_file(manifest)
    except (FormatError, StoreError, UnsupportedError):
        return frozenset()
    return frozenset() if found is None else _name_blobs(found)


def _name_blobs(manifest: Manifest) -> frozenset[str]:
    return frozenset(digest for file in manifest.files for digest in (file.sha256, file.git_sha1) if digest is not None)


def _find_links(layout: RepoLayout, commit: str, blobs: Mapping[str, tuple[int, int] | None]) -> frozenset[str]:
    """The blobs that its links name, and those that its files turn out to be.

    The second takes in hard links, and links that reach the blobs by another path.
    """
    folder = layout.snapshot(commit)
    inodes = {inode for path in walk(folder) if (inode := find_inode(path))}
    same = {name for name, inode in blobs.items() if inode in inodes}
    return frozenset(same | find_named_links(layout, folder, commit))


def find_named_links(layout: RepoLayout, folder: str, commit: str) -> set[str]:
    """The names of blobs that links in ``folder`` lead to, as seen from where the snapshot of ``commit`` belongs.

    Raises:
        StoreError: a folder cannot be read.
    """
    blobs = os.path.realpath(layout.blobs)
    names: set[str] = set()
    for path in walk(folder):
        try:
            link = os.readlink(path)
        except OSError:  # no link, or gone
            continue
        place = os.path.join(layout.snapshot(commit), os.path.relpath(path, folder))
        above, name = os.path.split(os.path.join(os.path.dirname(place), link))
        if os.path.realpath(above) == blobs:
            names.add(name)
    return names


def is_brought(root: str, layout: RepoLayout, commit: str) -> bool:
    """True if fastload brought the snapshot, all of it.

    One whose manifest was recorded where it lies is another tool's, and so is one to which a tool has added files.
    """
    return _read_brought(root, layout, commit) is not None


def _read_brought(root: str, layout: RepoLayout, commit: str) -> Manifest | None:
    """The manifest of a snapshot that fastload brought; None of any other."""
    source = _read_source(layout.manifest(commit)) if is_commit(commit) else None
    if source is None or source in {MADE_HERE, str(shared_tier(root))}:
        return None
    try:
        manifest = read_manifest(layout, commit)
    except (FormatError, StoreError):
        return None
    return manifest if manifest is not None and _holds_nothing_else(layout, commit, manifest) else None


def _holds_nothing_else(layout: RepoLayout, commit: str, manifest: Manifest) -> bool:
    """True if the snapshot has no file that its manifest does not name, nor a ``warm`` that died would have."""
    folder = layout.snapshot(commit)
    named = {file.path for file in manifest.files}
    others = {relative for path in walk(folder) if (relative := os.path.relpath(path, folder)) not in named}
    return not others or others <= find_brought(layout, commit).keys()


def _read_source(manifest: str) -> str | None:
    """Where the bytes of a manifest came from; None where it does not say.

    A manifest is canonical JSON, so the source is its end; that of a large model has megabytes before it.
    """
    try:
        with open(manifest, "rb", opener=regular_only) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            match = _SOURCE.search(file.read(_TAIL_BYTES))
        return str(parse_json(match["source"])) if match else None
    except (OSError, FormatError, JsonError):
        return None


def read_used_ns(layout: RepoLayout, commit: str) -> int | None:
    """When a snapshot that has a manifest was last used, or brought; None without one."""
    brought_ns, used_ns = find_mtime_ns(layout.manifest(commit)), find_mtime_ns(layout.stamp(commit))
    return brought_ns if brought_ns is None or used_ns is None else max(brought_ns, used_ns)


def touch_used(layout: RepoLayout, commit: str) -> None:
    """Note that the snapshot is used now. Where nothing may be written, nothing is."""
    try:
        os.utime(layout.stamp(commit), follow_symlinks=False)
    except OSError:
        return
