"""Making a snapshot visible, in the order that is the whole secret.

Every step leaves either what was there before or the whole of what comes: blobs, whose names are their digests; the
manifest, which says what the snapshot holds; the snapshot's folder, by one rename; the ref that leads to it. Folders
are synced between, so that a power cut cannot bring a later step to the disk without an earlier one.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from typing import TYPE_CHECKING

from fastload._store.filesystem import exchange, make_folder, new_id, sync_folder, write_whole, writing
from fastload._store.root import read_commit
from fastload._store.staged import StagingArea
from fastload._store.stamp import write_stamp
from fastload.errors import StoreError
from fastload._verify.manifest import dump_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastload._store.admit import Task
    from fastload._store.layout import RepoLayout
    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import Manifest, ManifestFile

_LAST = ("config.json", ".index.json")
"""What tells other tools that a model is there is linked last."""


def blob_name(file: ManifestFile) -> str:
    """The name that the hub's client would give the blob: git's sha1 where git keeps the file itself, else sha256."""
    return file.git_sha1 or file.sha256


def publish_snapshot(layout: RepoLayout, manifest: Manifest, tasks: Sequence[Task]) -> str:
    """Make the snapshot of ``manifest`` visible; all ``tasks`` are done. Returns its folder.

    The refs that shall lead to it come after: :func:`write_ref`.

    Raises:
        StoreError: it cannot be written. What was published before stays as it is.
    """
    area = StagingArea(layout.ours())
    make_folder(layout.blobs)
    blobs = {task.file.path: _publish_blob(layout, task) for task in tasks}
    sync_folder(layout.blobs)
    write_manifest(layout, manifest)
    folder = _publish_folder(layout, manifest.commit, blobs)
    _check_links(folder, blobs)
    write_stamp(layout.stamp(manifest.commit), folder, [task.file for task in tasks], area.parts)
    for task in tasks:
        forget_leftovers(area, task.file)
    return folder


def _publish_blob(layout: RepoLayout, task: Task) -> str:
    if task.done is None:
        raise AssertionError(task.file.path)
    name = blob_name(task.done)
    task.incoming.publish(layout.blob(name))
    return name


def write_manifest(layout: RepoLayout, manifest: Manifest) -> None:
    """Put the manifest where readers look for it.

    Raises:
        StoreError: it cannot be written.
    """
    path = layout.manifest(manifest.commit)
    make_folder(os.path.dirname(path))
    write_whole(path, dump_manifest(manifest), layout.ours("staging"))


def write_ref(layout: RepoLayout, revision: str, commit: str) -> None:
    """Let ``revision`` mean ``commit``; nothing is written where it does already.

    Raises:
        StoreError: it cannot be written.
    """
    path = layout.ref(revision)
    if read_commit(layout, revision) == commit:
        return
    make_folder(os.path.dirname(path))
    make_folder(layout.ours("staging"))
    write_whole(path, commit.encode("ascii"), layout.ours("staging"))


def _publish_folder(layout: RepoLayout, commit: str, blobs: Mapping[str, str]) -> str:
    """The snapshot's folder by one rename. What another tool put into an existing one stays in it."""
    target = layout.snapshot(commit)
    built = layout.ours("staging", f"{commit}.{new_id()}")
    try:
        _link_all(built, _existing_links(target) | {path: _link_to(path, name) for path, name in blobs.items()})
        _rename_folder(built, target)
    finally:
        shutil.rmtree(built, ignore_errors=True)
    sync_folder(layout.snapshots)
    return target


def _check_links(folder: str, paths: Iterable[str]) -> None:
    """Whoever removes a blob that nobody links to may have looked just before the folder appeared."""
    for path in paths:
        full = os.path.join(folder, path)
        if not os.path.exists(full):
            raise StoreError(full, "its blob was removed while it was published", "Run it again: the rest is there")


def _link_to(path: str, blob: str) -> str:
    """The link at ``snapshots/<commit>/<path>`` that leads to the blob."""
    return posixpath.join(*[".."] * (path.count("/") + 2), "blobs", blob)


def _existing_links(folder: str) -> dict[str, str]:
    """What the links in a snapshot lead to; a real file, which some tools leave there, stays one of its own."""
    links: dict[str, str] = {}
    for above, _, names in os.walk(folder):
        for name in names:
            full = os.path.join(above, name)
            path = os.path.relpath(full, folder)
            links[path] = os.readlink(full) if os.path.islink(full) else ""
    return {path: link for path, link in links.items() if link}


def _link_all(folder: str, links: Mapping[str, str]) -> None:
    with writing(folder):
        for path, link in links.items():
            full = os.path.join(folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.symlink(link, full)
    for above, _, _ in os.walk(folder, topdown=False):
        sync_folder(above)


def _rename_folder(built: str, target: str) -> None:
    with writing(target):
        if not os.path.isdir(target):
            try:
                os.rename(built, target)
            except OSError:
                if not os.path.isdir(target):  # else somebody was faster: exchange with his
                    raise
            else:
                return
    if not exchange(built, target):
        _link_one_by_one(built, target)
    else:
        _keep_real_files(built, target)


def _link_one_by_one(built: str, target: str) -> None:
    """Where two folders cannot be exchanged: each link by a rename of its own, index and config last."""
    paths = [os.path.relpath(os.path.join(above, name), built) for above, _, names in os.walk(built) for name in names]
    for path in sorted(paths, key=lambda path: (path.endswith(_LAST), path)):
        full = os.path.join(target, path)
        with writing(full):
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.replace(os.path.join(built, path), full)
    sync_folder(target)


def _keep_real_files(old: str, new: str) -> None:
    """A file that is no link has no other home: it moves from the old folder to the new one."""
    for above, _, names in os.walk(old):
        for name in names:
            full = os.path.join(above, name)
            target = os.path.join(new, os.path.relpath(full, old))
            if not os.path.islink(full) and not os.path.lexists(target):
                with writing(target):
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    os.replace(full, target)


def forget_leftovers(area: StagingArea, file: OfferedFile) -> None:
    """Remove what others staged of content that is published now."""
    digest = file.sha256 or file.git_sha1
    if digest is not None:
        for name in area.list_names(digest):
            area.remove(name)
