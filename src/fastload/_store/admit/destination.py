"""Where files are brought to: a repo in the hub's layout, or a folder of real files."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fastload._store.admit.area import StagingArea
from fastload._store.admit.publish import LAST, publish_snapshot
from fastload._store.admit.stamp import Chosen, Published, read_chosen, write_stamp
from fastload._store.containment import check_inside, check_own_folders, check_repo
from fastload._store.filesystem import check_one_mount, has_size, make_folder, remove_file, sync_folder
from fastload._store.folder_offer import read_manifest, read_manifest_file
from fastload._store.keep.mark import clear_marks, find_damaged
from fastload._store.keep.removal import finish_removals
from fastload._store.keep.tidy import make_empty, remove_emptied, remove_empty
from fastload._store.keep.usage import is_brought
from fastload._store.listing import read_tree
from fastload._store.replacing import write_whole
from fastload._verify.manifest import dump_manifest
from fastload._verify.path import OURS
from fastload.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._store.admit.incoming import Task
    from fastload._store.layout import RepoLayout
    from fastload._store.offer import OfferedFile
    from fastload._store.wanted import Wish
    from fastload._verify.manifest import Manifest


class Destination(Protocol):
    """Takes the files of one snapshot."""

    @property
    def area(self) -> StagingArea:
        """Where files are staged: on the file system on which they will be published."""

    @property
    def needs_links(self) -> bool:
        """True if publishing makes symbolic links."""

    def make(self) -> None:
        """Make the folders that must be there before anything is staged."""

    def check_may_come(self) -> None:
        """Check that what is staged could be given its name. Raises: ``StoreError`` where that is on another mount."""

    def tidy(self) -> None:
        """Nothing was published: remove what was made for nothing."""

    def find_existing(self, file: OfferedFile) -> str | None:
        """The path of a file in its place that may be ``file``; its bytes have yet to prove it."""

    def holds(self, commit: str) -> bool:
        """True if something of that commit is published there, whoever brought it."""

    def is_foreign(self, commit: str) -> bool:
        """True if another tool has brought that commit, or a part of it, before."""

    def publish(self, manifest: Manifest, tasks: Sequence[Task], chosen: Chosen) -> str:
        """Make the snapshot of the ``chosen`` files visible in an order that no crash can spoil; its folder."""


class CacheDestination:
    """A repo in the layout of the hub's cache."""

    needs_links = True

    def __init__(self, layout: RepoLayout) -> None:
        self._layout = layout
        self.area = StagingArea(layout.ours())

    def make(self) -> None:
        """See :class:`Destination`. ``snapshots/`` comes before ours: without it the hub's tools see a broken repo.

        Raises:
            StoreError: a link there leads out of the tier, where nothing is to be written; or ``snapshots/`` is a mount
                of its own.
        """
        check_inside(self._layout.folder, os.path.dirname(self._layout.folder))
        check_repo(self._layout)
        finish_removals(self._layout)  # before anything is made: with the last snapshot its empty folders go
        make_empty(self._layout)
        remove_emptied(*os.path.split(self._layout.folder))
        self.area.make()
        check_one_mount(self._layout.snapshots, self.area.parts)

    def check_may_come(self) -> None:
        """See :class:`Destination`; blobs that are there already need no place."""
        check_one_mount(self._layout.blobs, self.area.parts)

    def tidy(self) -> None:
        """See :class:`Destination`."""
        remove_empty(self._layout)

    def find_existing(self, file: OfferedFile) -> str | None:
        """See :class:`Destination`: a blob of that digest, whoever brought it."""
        path = self._layout.blob(file.blob_name) if file.has_digest else ""
        return path if path and _may_be(path, file.size) else None

    def holds(self, commit: str) -> bool:
        """See :class:`Destination`."""
        return os.path.isdir(self._layout.snapshot(commit))

    def is_foreign(self, commit: str) -> bool:
        """See :class:`Destination`: also where a tool has added files to what fastload brought."""
        return self.holds(commit) and not is_brought(os.path.dirname(self._layout.folder), self._layout, commit)

    def publish(self, manifest: Manifest, tasks: Sequence[Task], chosen: Chosen) -> str:
        """See :class:`Destination`."""
        folder = publish_snapshot(self._layout, manifest, tasks, chosen)
        clear_marks(self._layout, manifest.commit)
        return folder

    def is_met(self, commit: str, wish: Wish, *, must_be_sure: bool) -> bool:
        """True if the snapshot has a manifest and all that it says, each file at its size, and what ``wish`` wants.

        Not where a file of it was found damaged; nor, if it ``must_be_sure``, where it came from a copy that may have
        lacked some of what was wished for.
        """
        manifest = _read_good(lambda: read_manifest(self._layout, commit))
        if manifest is None or not _is_whole(self._layout.snapshot(commit), manifest):
            return False
        if find_damaged(self._layout, commit):
            return False
        paths = [file.path for file in manifest.files]
        named = read_tree(self._layout.tree(commit)) if must_be_sure else None
        if named is not None:
            return not wish.chooses_beyond(paths, named)
        return read_chosen(self._layout.stamp(commit)).meets(wish, paths, must_be_sure=must_be_sure)


class PlainDestination:
    """A folder of real files, for places without symbolic links.

    It cannot change from one snapshot to another in one step. So the manifest of the old one goes first, and that of
    the new one comes when all of its files are in place: between them the folder proves nothing.
    """

    needs_links = False

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.area = StagingArea(os.path.join(folder, OURS))

    @property
    def _manifests(self) -> str:
        return os.path.join(self._folder, OURS, "manifests")

    def find_held(self, wish: Wish, *, must_be_sure: bool) -> Manifest | None:
        """What is in the folder, if all its files are there, each at its size, and all that is wanted."""
        manifests = self._read_manifests()
        if len(manifests) != 1 or not _is_whole(self._folder, manifests[0]):
            return None
        paths = (file.path for file in manifests[0].files)
        is_met = read_chosen(self.stamp).meets(wish, paths, must_be_sure=must_be_sure)
        return manifests[0] if is_met else None

    def list_brought(self) -> set[str]:
        """The paths of what was brought before: of these goes what the next snapshot has not."""
        return {file.path for manifest in self._read_manifests() for file in manifest.files}

    @property
    def stamp(self) -> str:
        """What the folder and its source looked like when it was brought."""
        return os.path.join(self._folder, OURS, "stamp.json")

    def _read_manifests(self) -> list[Manifest]:
        try:
            names = sorted(os.listdir(self._manifests))
        except (FileNotFoundError, NotADirectoryError):
            return []
        paths = (os.path.join(self._manifests, name) for name in names)
        found = (_read_good(partial(read_manifest_file, path)) for path in paths)
        return [manifest for manifest in found if manifest is not None]

    def make(self) -> None:
        """See :class:`Destination`."""
        check_own_folders(self._folder)
        self.area.make()

    def check_may_come(self) -> None:
        """See :class:`Destination`."""
        check_one_mount(self._folder, self.area.parts)

    def tidy(self) -> None:
        """See :class:`Destination`. The folder is the user's, empty or not."""

    def find_existing(self, file: OfferedFile) -> str | None:
        """See :class:`Destination`."""
        path = os.path.join(self._folder, file.path)
        return path if file.has_digest and _may_be(path, file.size) else None

    def holds(self, commit: str) -> bool:
        """See :class:`Destination`."""
        return any(manifest.commit == commit for manifest in self._read_manifests())

    def is_foreign(self, commit: str) -> bool:
        """See :class:`Destination`. Nothing here is ever evicted."""
        return False

    def publish(self, manifest: Manifest, tasks: Sequence[Task], chosen: Chosen) -> str:
        """See :class:`Destination`."""
        before = self.list_brought()
        self._forget_manifests()
        for task in sorted(tasks, key=lambda task: task.file.path.endswith(LAST)):
            path = self._place(task.file.path)
            check_inside(os.path.dirname(path), self._folder)
            make_folder(os.path.dirname(path))
            task.incoming.publish(path)
            sync_folder(os.path.dirname(path))
        make_folder(self._manifests)
        path = os.path.join(self._manifests, f"{manifest.commit}.json")
        write_whole(path, dump_manifest(manifest), self.area.parts)
        published = Published(tuple((task.file, self._place(task.file.path)) for task in tasks), chosen)
        write_stamp(self.stamp, published, self.area.parts)
        for stale in before - {file.path for file in manifest.files}:
            remove_file(self._place(stale))
        return self._folder

    def _place(self, path: str) -> str:
        return os.path.join(self._folder, path)

    def _forget_manifests(self) -> None:
        if os.path.isdir(self._manifests):
            for name in os.listdir(self._manifests):
                remove_file(os.path.join(self._manifests, name))
            sync_folder(self._manifests)


def _read_good(read: Callable[[], Manifest | None]) -> Manifest | None:
    """The manifest; a malformed one, or one of something else, proves nothing, and is replaced."""
    try:
        return read()
    except FormatError:
        return None


def _is_whole(folder: str, manifest: Manifest) -> bool:
    return all(has_size(os.path.join(folder, file.path), file.size) for file in manifest.files)


def _may_be(path: str, size: int) -> bool:
    """Not a link: what lies behind one may be anybody's."""
    return not os.path.islink(path) and has_size(path, size) and os.access(path, os.R_OK)
