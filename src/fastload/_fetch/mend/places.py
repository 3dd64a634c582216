"""Where a stored file is to lie, and how its path comes to lead there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.mend.stored_file import in_its_folder, is_blob, scratch_of
from fastload._store.directory import contained_target, containment_root
from fastload._store.filesystem import make_folder, new_id, put_link
from fastload._store.layout import link_to_blob
from fastload._store.listing import with_digest
from fastload._store.stored import CachedSnapshot, PlainFolder

if TYPE_CHECKING:
    from fastload._fetch.mend.repair import Repair
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored


@dataclass(frozen=True, slots=True)
class Places:
    """Of the files of one stored snapshot."""

    stored: Stored
    repair: Repair
    """Knows which links lead to what is not their own."""

    def path(self, file: OfferedFile) -> str:
        """By which the file is known."""
        return os.path.join(self.stored.folder, file.path)

    def find(self, file: OfferedFile) -> str:
        """Where the file is to be: where its path leads, or the blob to which it should; none gets another's bytes.

        Where nobody says what that is called, and in a plain folder, a file of its own instead of a link.
        """
        path, stored, root = self.path(file), self.stored, containment_root(self.stored.folder)
        target = contained_target(path, root)
        if isinstance(stored, CachedSnapshot):
            if os.path.lexists(path) and not self.repair.leads_elsewhere(file):
                return target
            if file.has_digest:
                return stored.layout.blob(file.blob_name)
        return in_its_folder(path, root)

    def list_all(self, file: OfferedFile, offered: OfferedFile) -> tuple[str, ...]:
        """The likeliest first: that the name of a blob is a digest of another kind does not say that it is wrong.

        A signature says of no digest of git's, and small files are called by it: where what is ``offered`` is called as
        the blob to which the link leads, it is that one, as all others may have it that lead to it.
        """
        place, stored = self.find(file), self.stored
        if isinstance(stored, PlainFolder) or not file.has_digest:
            return (place,)
        leads_to = contained_target(self.path(file), containment_root(stored.folder))
        is_alike = os.path.basename(leads_to) in {offered.sha256, offered.git_sha1}
        first = leads_to if is_alike and is_blob(leads_to, stored.layout) else place
        if first == place and not is_blob(place, stored.layout):
            return (place,)
        return tuple(dict.fromkeys((first, place, stored.layout.blob(file.blob_name))))

    def as_called(self, file: OfferedFile, place: str) -> OfferedFile:
        """``file`` with the digest by which a blob at ``place`` is called: no other bytes may have that name."""
        is_in_cache = isinstance(self.stored, CachedSnapshot) and is_blob(place, self.stored.layout)
        return with_digest(file, os.path.basename(place)) if is_in_cache else file

    def link(self, file: OfferedFile, place: str) -> None:
        """Let the file's path lead to ``place``, where it does not, in one step."""
        path = self.path(file)
        if os.path.realpath(path) == os.path.realpath(place):
            return
        make_folder(os.path.dirname(path))
        scratch = scratch_of(self.stored)
        make_folder(scratch)
        put_link(path, self._say_link(file, place), os.path.join(scratch, new_id()))

    def _say_link(self, file: OfferedFile, place: str) -> str:
        """As the hub's tools write it; below a folder that is a link itself, the way from where that leads."""
        name, above = os.path.basename(place), os.path.realpath(os.path.dirname(self.path(file)))
        usual = link_to_blob(file.path, name)
        if os.path.realpath(os.path.join(above, usual)) == os.path.realpath(place):
            return usual
        return os.path.relpath(os.path.join(os.path.realpath(os.path.dirname(place)), name), above)
