"""The manifest in a plain folder: which one is believed, and how a newer one takes its place.

::

    <folder>/.fastload/manifests/<commit>.json

Who reads while a folder is recorded again finds the old one or the new one, and never none: the new content first takes
the old name, then its own, and only then the old name goes. So of two that say the same, either will do; of two that
differ nobody can say which is meant, and neither is believed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._read.file import translate
from fastload._store.belonging import check_is_whole_record
from fastload._store.containment import leads_out
from fastload._store.filesystem import make_folder, remove_file, writing
from fastload._store.manifest_folder import find_cure, find_distrust, make_own_folder, read_own, write_own
from fastload._verify.manifest import MAX_MANIFEST_BYTES, dump_manifest, parse_manifest
from fastload._verify.path import OURS
from fastload._verify.trust import PassedOver
from fastload.errors import FormatError

if TYPE_CHECKING:
    from fastload._verify.manifest import Manifest

_LOOKS = 5
"""Names may go between a look at the folder and one at them."""


class _GoneError(Exception):
    """Somebody is replacing what was listed."""


def find_folder_manifest(folder: str) -> Manifest | PassedOver | None:
    """The one in a plain folder, if nobody but us or root can have written it; None where there is none.

    Raises:
        FormatError, StoreError: it is malformed, of another commit than its files, or cannot be read.
    """
    place = _place(folder)
    if leads_out(place, folder):
        link = place if os.path.islink(place) else os.path.dirname(place)
        return PassedOver(place, "is behind a link that leads out of the folder", find_cure(link))
    for _ in range(_LOOKS):
        try:
            return _find(place)
        except _GoneError:
            continue
    return PassedOver(place, "has manifests that come and go")


def write_folder_manifest(folder: str, manifest: Manifest) -> None:
    """Let ``manifest`` be the only one in a plain folder.

    Raises:
        StoreError: it cannot be written, or others may write there.
    """
    place, scratch = _place(folder), os.path.join(folder, OURS, "staging")
    make_own_folder(place)
    make_folder(scratch)
    content, made = dump_manifest(manifest), os.path.join(place, f"{manifest.commit}.json")
    others = [path for path in _list(place) if path != made]
    for path in (*others, made):
        write_own(path, content, scratch)
    for path in others:
        remove_file(path)


def _place(folder: str) -> str:
    return os.path.join(folder, OURS, "manifests")


def _list(place: str) -> list[str]:
    with writing(place):
        return [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(".json")]


def _find(place: str) -> Manifest | PassedOver | None:
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(".json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise translate(place, exc) from exc
    if not names:
        return None
    paths = [os.path.join(place, name) for name in names]
    for path in (place, *paths):
        distrust = find_distrust(path)
        if distrust is not None:
            _check_there(path)
            return _pass_over(path, distrust, place)
    contents = {_read(path): path for path in paths}
    if len(contents) > 1:
        return _pass_over(place, f"has {len(paths)} manifests that differ, and nobody can say which is meant", place)
    ((raw, path),) = contents.items()
    manifest = parse_manifest(raw, path=path)
    check_is_whole_record(manifest, path)
    return manifest


def _pass_over(path: str, reason: str, place: str) -> PassedOver:
    """With what is in the way of a new one, which is written into two folders."""
    return PassedOver(path, reason, find_cure(place, os.path.join(os.path.dirname(place), "stamps")))


def _read(path: str) -> bytes:
    try:
        return read_own(path, MAX_MANIFEST_BYTES)
    except FormatError:
        _check_there(path)
        raise


def _check_there(path: str) -> None:
    if not os.path.lexists(path):
        raise _GoneError
