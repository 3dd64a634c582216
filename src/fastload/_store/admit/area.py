"""The folders in which files are staged: their bytes, and journals of which of them are there."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass

from fastload._store.filesystem import make_folder, remove_file, writing
from fastload._store.keep.disk import list_folder
from fastload.errors import StoreError

_log = logging.getLogger("fastload")

UNDER_LEASE = re.compile(r"(?:probe|hub|stamp|[0-9a-f]{40,64}|plain-[0-9a-f]{40})(?:\.json)?\.[0-9a-f]{16}")
"""What only the holder of the lease makes: probes, scratch, files on their way in, what is about to be renamed."""


@dataclass(frozen=True, slots=True)
class StagingArea:
    """Where the files of one repo, or of one plain folder, are staged."""

    ours: str
    """The ``.fastload`` folder."""

    @property
    def parts(self) -> str:
        """Where bytes are."""
        return os.path.join(self.ours, "staging")

    @property
    def journals(self) -> str:
        """Where it is noted which of them are there."""
        return os.path.join(self.ours, "journals")

    def make(self) -> None:
        """Make the folders."""
        make_folder(self.parts)
        make_folder(self.journals)

    def list_names(self, key: str) -> list[str]:
        """The names under which content ``key`` was staged, by whomever.

        Raises:
            StoreError: the folder cannot be read.
        """
        with writing(self.journals):
            try:
                return sorted(name for name in os.listdir(self.journals) if name.startswith(f"{key}."))
            except FileNotFoundError:
                return []

    def part(self, name: str) -> str:
        """The file that holds the bytes."""
        return os.path.join(self.parts, name)

    def journal(self, name: str) -> str:
        """The file that says which."""
        return os.path.join(self.journals, name)

    def remove(self, name: str) -> None:
        """Forget what was staged as ``name``. If somebody still writes there, it is to nobody's harm but his own."""
        remove_file(self.part(name))
        remove_file(self.journal(name))

    def forget(self, key: str) -> None:
        """Remove whatever was staged of content ``key``, which is published now.

        What cannot be removed, such as a folder that somebody has put there, stays: what is published is whole.
        """
        try:
            names = self.list_names(key)
        except StoreError as exc:
            _log.info("what was staged of what is published stays: %s", exc)
            return
        for path in (path for name in names for path in (self.part(name), self.journal(name))):
            try:
                remove_file(path)
            except StoreError as exc:
                _log.info("what was staged of what is published stays: %s", exc)

    def find_remains(self, made: re.Pattern[str]) -> list[str]:
        """The names of what was about to be renamed, of what is ``made`` under one lease; what has a journal is kept.

        Raises:
            StoreError: a folder cannot be read.
        """
        names = {name for name in list_folder(self.parts) if made.fullmatch(name)}
        return sorted(names.difference(list_folder(self.journals))) if names else []

    def sweep(self, made: re.Pattern[str] = UNDER_LEASE) -> None:
        """Remove what a dead holder of the lease was about to rename; for its next holder, who stages nothing yet."""
        for name in self.find_remains(made):
            if os.path.isdir(self.part(name)) and not os.path.islink(self.part(name)):
                shutil.rmtree(self.part(name), ignore_errors=True)
            else:
                remove_file(self.part(name))
