"""Making a snapshot visible, in the order that is the whole secret.

Every step leaves either what was there before or the whole of what comes: blobs, whose names are their digests; the
manifest, which says what the snapshot holds; the snapshot's folder, by one rename; the ref that leads to it. Where the
folder is there already, with less in it, the manifest comes after it, unless the one so far names what is gone; that
what comes is fastload's is noted before. Folders are synced between, so that a power cut cannot bring a later step to
the disk without an earlier one.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from fastload._store.admit.area import StagingArea
from fastload._store.admit.coming import note_coming
from fastload._store.admit.stamp import Published, write_stamp
from fastload._store.admit.union import unite
from fastload._store.filesystem import exchange, make_folder, new_id, sync_folder, writing
from fastload._store.layout import link_to_blob
from fastload._store.replacing import write_whole
from fastload._verify.manifest import dump_manifest
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fastload._store.admit.incoming import Task
    from fastload._store.admit.stamp import Chosen
    from fastload._store.admit.union import Union
    from fastload._store.layout import RepoLayout
    from fastload._verify.manifest import Manifest, ManifestFile

LAST = ("config.json", ".index.json")
"""What tells other tools that a model is there is linked last."""


def blob_name(file: ManifestFile) -> str:
    """The name that the hub's client would give the blob: git's sha1 where git keeps the file itself, else sha256."""
    return file.git_sha1 or file.sha256


def publish_snapshot(layout: RepoLayout, manifest: Manifest, tasks: Sequence[Task], chosen: Chosen) -> str:
    """Make the snapshot of ``manifest`` visible; all ``tasks`` are done. Returns its folder.

    The refs that shall lead to it come after: :func:`~fastload._store.admit.reference.write_ref`.

    Raises:
        StoreError: it cannot be written. What was published before stays as it is.
    """
    area = StagingArea(layout.ours())
    make_folder(layout.blobs)
    blobs = {task.file.path: _publish_blob(layout, task) for task in tasks}
    sync_folder(layout.blobs)
    links = {path: link_to_blob(path, name) for path, name in blobs.items()}
    published = Published(tuple((task.file, layout.blob(blobs[task.file.path])) for task in tasks), chosen)
    union = unite(layout, manifest, published)

    def write_notes() -> None:
        if union is None:
            _write_notes(layout, manifest, published, area)
        else:
            _write_union(layout, union, area)

    def note_links(built: str) -> None:
        if union is not None and manifest.source != "local":  # else there is another tool's in it, and stays that
            note_coming(layout, manifest.commit, built, links, union.published.coming)

    has_lost = union is not None and union.has_lost
    # What is there already is judged by its own evidence until it is whole: a manifest would call it complete at once.
    # But one that names what is gone gives way first.
    if os.path.isdir(layout.snapshot(manifest.commit)) and not has_lost:
        folder = _publish_folder(layout, manifest.commit, links, note_links)
        write_notes()
    else:
        write_notes()
        folder = _publish_folder(layout, manifest.commit, links)
    _check_links(folder, links)
    return folder


def _write_notes(layout: RepoLayout, manifest: Manifest, published: Published, area: StagingArea) -> None:
    """The stamp first: without it, what the manifest names would pass for all that is wished for by default."""
    write_stamp(layout.stamp(manifest.commit), published, area.parts)
    write_manifest(layout, manifest)


def _write_union(layout: RepoLayout, union: Union, area: StagingArea) -> None:
    """So that at no time the stamp says of more than the manifest has, or than is there."""
    if union.has_lost:
        _write_notes(layout, union.manifest, union.published, area)
    else:  # of both wishes, which the manifest so far does not meet
        write_manifest(layout, union.manifest)
        write_stamp(layout.stamp(union.manifest.commit), union.published, area.parts)


def restore_file(layout: RepoLayout, commit: str, task: Task) -> None:
    """Put one file back that the snapshot of ``commit`` has lost; its ``task`` is done.

    Raises:
        StoreError: it cannot be written.
    """
    make_folder(layout.blobs)
    links = {task.file.path: link_to_blob(task.file.path, _publish_blob(layout, task))}
    sync_folder(layout.blobs)
    _check_links(_publish_folder(layout, commit, links), links)


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


def _publish_folder(
    layout: RepoLayout, commit: str, links: Mapping[str, str], note: Callable[[str], None] | None = None
) -> str:
    """The snapshot's folder by one rename. What another tool put into an existing one stays in it.

    ``note`` is given the folder in which the links are, before anybody sees them.
    """
    target = layout.snapshot(commit)
    built = layout.ours("staging", f"{commit}.{new_id()}")
    try:
        _link_all(built, links)
        _sync_folders(built)
        if note is not None:
            note(built)
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


def _link_all(folder: str, links: Mapping[str, str]) -> None:
    with writing(folder):
        for path, link in links.items():
            full = os.path.join(folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.symlink(link, full)


def _sync_folders(folder: str) -> None:
    for above, _, _ in os.walk(folder, topdown=False):
        sync_folder(above)


def _rename_folder(built: str, target: str) -> None:
    with writing(target):
        try:
            os.rename(built, target)
        except OSError as exc:
            if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return
    if _take_in(target, built) and exchange(built, target):
        _take_in(built, target)  # what came into the old folder while it was exchanged
    else:
        _link_one_by_one(built, target)


def _take_in(old: str, new: str) -> bool:
    """Put what is in the folder ``old`` into ``new`` too, where ``new`` has nothing of that name; False: it cannot be.

    A link is made again; a real file, which some tools leave there, gets a second name.
    """
    for path in _list_entries(old):
        source, target = os.path.join(old, path), os.path.join(new, path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError:
            return False
    _sync_folders(new)
    return True


def _list_entries(folder: str) -> Iterator[str]:
    """The paths of all that is no folder, links to folders included."""
    for above, folders, names in os.walk(folder):
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(above, name)))):
            yield os.path.relpath(os.path.join(above, name), folder)


def _link_one_by_one(built: str, target: str) -> None:
    """Where two folders cannot be exchanged: each link by a rename of its own, index and config last."""
    for path in sorted(_list_entries(built), key=lambda path: (path.endswith(LAST), path)):
        full = os.path.join(target, path)
        with writing(full):
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.replace(os.path.join(built, path), full)
    _sync_folders(target)
