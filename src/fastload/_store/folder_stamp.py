"""What the files of a plain folder looked like when they were recorded, so that a look tells which were written since.

``<folder>/.fastload/stamps/<commit>.json``, beside the manifest of the commit. It is no evidence: it tells what was
changed on purpose, which is another file, from what changed under the same mtime, which is damage.

Where the folder was copied, and the copies have the time of copying, times tell nothing: the stamp was copied with it,
and its own mtime is not the one that it says it has.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from fastload._store.directory import contained, containment_root
from fastload._store.filesystem import make_folder, writing
from fastload._store.manifest_folder import is_ours_alone, make_own_folder, read_own_note, write_own
from fastload._store.wanted import is_weight
from fastload._verify.path import OURS
from fastload._verify.trust import Times
from fastload.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import Manifest

_COARSE_NS = 2_000_000_000
"""What the coarsest file systems round mtimes to."""


def write_folder_stamp(folder: str, commit: str, files: Iterable[OfferedFile]) -> None:
    """Note what ``files``, recorded as ``commit``, looked like before they were read.

    Raises:
        StoreError: it cannot be written, or others may write there.
    """
    path, scratch = _place(folder, commit), os.path.join(folder, OURS, "staging")
    make_own_folder(os.path.dirname(path))
    make_folder(scratch)
    now_ns = time.time_ns() // _COARSE_NS * _COARSE_NS
    noted = {file.path: [file.size, file.mtime_ns] for file in files}
    stamp = {"schema": 1, "mtime_ns": now_ns, "files": noted}
    write_own(path, json.dumps(stamp, sort_keys=True).encode("utf-8"), scratch)
    with writing(path):
        os.utime(path, ns=(now_ns, now_ns))


def remove_folder_stamps(folder: str, kept: str) -> None:
    """Remove the stamps of manifests that are gone; the one of the commit ``kept`` stays."""
    stamps = os.path.dirname(_place(folder, kept))
    with writing(stamps):
        for name in os.listdir(stamps):
            if name.endswith(".json") and name != f"{kept}.json":
                os.unlink(os.path.join(stamps, name))


def look_at_times(folder: str, manifest: Manifest) -> tuple[tuple[Times, ...], bool]:
    """Of the files of ``manifest`` that are there; and whether times tell anything.

    They do not where nobody can say what was written after it was made: it was copied, or has no stamp.
    """
    noted = _read_noted(_place(folder, manifest.commit))
    there = (file.path for file in manifest.files if os.path.lexists(os.path.join(folder, file.path)))
    return tuple(_look(folder, path, (noted or {}).get(path)) for path in there), noted is not None


def _look(folder: str, path: str, noted: Any) -> Times:
    is_noted = isinstance(noted, list) and len(noted) == 2  # noqa: PLR2004 - size and mtime
    try:
        now_ns = os.stat(contained(os.path.join(folder, path), containment_root(folder))).st_mtime_ns
    except (FormatError, OSError):
        now_ns = None
    return Times(path, now_ns, noted[1] if is_noted else None, is_weight=is_weight(path))


def _read_noted(path: str) -> dict[str, Any] | None:
    """None where there is nothing that only we or root can have written, or it was copied."""
    if not (is_ours_alone(os.path.dirname(path)) and is_ours_alone(path)):
        return None
    stamp = read_own_note(path) or {}
    try:
        is_copy = os.stat(path).st_mtime_ns != stamp.get("mtime_ns")
    except OSError:
        return None
    noted = stamp.get("files")
    return noted if isinstance(noted, dict) and not is_copy else None


def _place(folder: str, commit: str) -> str:
    return os.path.join(folder, OURS, "stamps", f"{commit}.json")
