"""Stamps: what published files and their sources looked like, so that a look tells whether they still do.

``.fastload/stamps/<commit>.json`` is ours alone and never evidence: it saves reading, it does not prove bytes.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fastload._format.header import parse_object
from fastload._read.file import identify, read_small_file
from fastload._store.filesystem import make_folder, write_whole
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._store.offer import OfferedFile

_MAX_STAMP_BYTES = 64 << 20  # 64 MiB


def write_stamp(path: str, folder: str, files: Iterable[OfferedFile], scratch: str) -> None:
    """Note at ``path`` what ``files``, published in ``folder``, look like there and did where they came from.

    Raises:
        StoreError: it cannot be written.
    """
    document = {}
    for file in files:
        identity = identify(os.stat(os.path.join(folder, file.path)))
        document[file.path] = {**identity._asdict(), "source": [file.size, file.mtime_ns]}
    make_folder(os.path.dirname(path))
    content = json.dumps({"schema": 1, "files": document}, sort_keys=True).encode("utf-8")
    write_whole(path, content, scratch)


def source_is_unchanged(path: str, files: Iterable[OfferedFile]) -> bool:
    """True if ``files`` are those of the stamp at ``path``, each with the size and mtime it had where it came from."""
    noted = {name: entry.get("source") for name, entry in _read(path).items()}
    return noted == {file.path: [file.size, file.mtime_ns] for file in files}


def _read(path: str) -> dict[str, Any]:
    """The files of a stamp; none where there is no stamp that can be read."""
    if not os.path.isfile(path):
        return {}
    try:
        files = parse_object(read_small_file(path, _MAX_STAMP_BYTES), path).get("files")
    except (FormatError, StoreError):
        return {}
    return {name: entry for name, entry in files.items() if isinstance(entry, dict)} if isinstance(files, dict) else {}
