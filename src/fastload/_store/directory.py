"""A checkpoint in a folder: which of its files, and do they stay inside it?"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._budget import check_json_room
from fastload._format.index import MAX_INDEX_BYTES, SHARD_SUFFIX, Index, parse_index
from fastload._format.select import ByIndex, Layered, LayeredByIndex, order_by_numbers
from fastload._read.file import check_regular, read_small_file, translate
from fastload._store.ref import is_spellable
from fastload._verify.path import is_index
from fastload.errors import FormatError, ModelNotFoundError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._format.select import Select
    from fastload._read.file import ProveWhole

_SNAPSHOT = re.compile(r"(?P<root>.*)/models--[^/]+/snapshots/[^/]+(?:/.*)?", re.DOTALL)
"""A snapshot in the hub's cache layout, whose files are links to blobs beside it, or elsewhere below the cache."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of one checkpoint."""

    folder: str
    shards: tuple[tuple[str, str], ...]
    """``(name relative to the folder, absolute path)``, in the order in which they were chosen."""
    index: Index | None
    is_chosen: bool = False
    """True if the shard or the index was named, instead of a folder."""
    is_layered: bool = False
    """True if of a tensor that several shards have the last one's counts."""

    def list_beside(self) -> Iterator[str]:
        """The names of all that is in the folder, where it can be listed; which is not done before one is taken."""
        with suppress(OSError):
            yield from os.listdir(self.folder)


def find_files(path: str, *, subfolder: str | None, select: Select, prove: ProveWhole | None = None) -> CheckpointFiles:
    """The checkpoint at ``path``: a folder, an index, which ``prove`` sees before it is believed, or one shard.

    Args:
        path: absolute.
        subfolder: of a folder.
        select: chooses among the files of a folder.
        prove: raises where an index is not what it should be.

    Raises:
        ModelNotFoundError: nothing is there.
        FormatError: no weights, a malformed index, a missing shard, a link that leads nowhere or out of the folder.
        StoreError: it cannot be read.
        UsageError: ``subfolder`` does not fit, or what ``select`` raises.
        IntegrityError: what ``prove`` raises.
        MemoryBudgetError: to parse the index would take more memory than there is.
    """
    status = _look_at(path)
    if stat.S_ISDIR(status.st_mode):
        return _in_folder(_join(path, subfolder), select, prove)
    if subfolder is not None:
        raise UsageError(f"{path!r} is a file: it has no subfolder", "Give the folder instead")
    if is_index(path):
        return replace(_by_index(os.path.dirname(path), path, prove), is_chosen=True)
    if path.endswith(SHARD_SUFFIX):
        return CheckpointFiles(os.path.dirname(path), ((os.path.basename(path), path),), None, is_chosen=True)
    check_regular(path, status)
    hint = "Give a folder, a .safetensors file or its .safetensors.index.json"
    raise FormatError(path, "a file of another kind", "safetensors weights", hint=hint)


def _look_at(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as exc:
        if exc.errno in _ABSENT and not os.path.islink(path):
            raise ModelNotFoundError(path, (path,), "Check the path, and that its volume is mounted") from exc
        raise translate(path, exc) from exc


def _join(path: str, subfolder: str | None) -> str:
    if not subfolder:
        return path
    if not is_spellable(subfolder):
        raise UsageError(f"subfolder {subfolder!r} cannot be a path", "Give a folder inside the model")
    if os.path.isabs(subfolder) or ".." in subfolder.split("/"):
        raise UsageError(f"subfolder {subfolder!r} is no plain relative path", "Give a folder inside the model")
    joined = os.path.join(path, subfolder)
    try:
        is_folder = stat.S_ISDIR(_look_at(joined).st_mode)
    except ModelNotFoundError:
        is_folder = False
    if not is_folder:
        raise ModelNotFoundError(joined, (joined,), _name_subfolders(path))
    return contained(joined, containment_root(path))


def _name_subfolders(path: str) -> str:
    try:
        with os.scandir(path) as entries:
            there = sorted(entry.name for entry in entries if entry.is_dir())[:8]
    except OSError:  # a hint is not worth an error of its own
        there = []
    return f"There is: {', '.join(map(quoted, there))}" if there else "Give a folder inside the model"


def _in_folder(folder: str, select: Select, prove: ProveWhole | None) -> CheckpointFiles:
    try:
        names = os.listdir(folder)
    except OSError as exc:
        raise translate(folder, exc) from exc
    selection = select(names, path=folder)
    if isinstance(selection, ByIndex):
        files = _by_index(folder, contained(os.path.join(folder, selection.name), containment_root(folder)), prove)
        return _in_layers(files) if isinstance(selection, LayeredByIndex) else files
    shards = _locate(folder, selection.names)
    return CheckpointFiles(folder, shards, None, is_layered=isinstance(selection, Layered))


def _by_index(folder: str, path: str, prove: ProveWhole | None) -> CheckpointFiles:
    index = read_index(path, prove)
    root = containment_root(folder)
    return CheckpointFiles(folder, tuple((name, _named(folder, name, root, index)) for name in index.shards), index)


def _named(folder: str, name: str, root: str, index: Index) -> str:
    """The path of a shard that ``index`` names."""
    try:
        return contained(os.path.join(folder, name), root)
    except FormatError as exc:
        raise index.explain(exc, name) from exc


def _in_layers(files: CheckpointFiles) -> CheckpointFiles:
    paths = dict(files.shards)
    shards = tuple((name, paths[name]) for name in order_by_numbers(paths))
    return replace(files, shards=shards, is_layered=True)


def read_index(path: str, prove: ProveWhole | None = None) -> Index:
    """The index ``path``, which ``prove`` sees before it is believed.

    Raises:
        FormatError: it is malformed, or too large.
        StoreError: it cannot be read.
        IntegrityError: what ``prove`` raises.
        MemoryBudgetError: to parse it would take more memory than there is.
    """
    raw = read_small_file(path, MAX_INDEX_BYTES, prove)
    check_json_room(len(raw), path)
    return parse_index(raw, path=path)


def _locate(folder: str, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    root = containment_root(folder)
    return tuple((name, contained(os.path.join(folder, name), root)) for name in names)


def containment_root(folder: str) -> str:
    """The folder that the links of a checkpoint in ``folder`` must stay in: itself, or the cache that it is part of."""
    real = os.path.realpath(folder)
    match = _SNAPSHOT.fullmatch(real)
    return (match["root"] or "/") if match else real


def contained(path: str, root: str) -> str:
    """``path``, unless a link on it leads out of ``root``: a checkpoint must not make its reader open other files.

    Raises:
        FormatError: it does, or leads nowhere.
        StoreError: it cannot be followed.
    """
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as exc:
        raise translate(path, exc) from exc
    _check_below(root, real, path)
    return path


def contained_target(path: str, root: str) -> str:
    """Where the links on ``path`` lead, whether anything is there or not; a file there may be replaced.

    Raises:
        FormatError: out of ``root``: nobody's files but the model's own are to be written.
    """
    real = os.path.realpath(path)
    _check_below(root, real, path)
    return real


def _check_below(root: str, real: str, path: str) -> None:
    if os.path.commonpath([real, root]) != root:
        hint = "If you trust it, load the link's target by its own path, or copy the file into the folder"
        raise FormatError(path, f"a link to {real!r}", f"a path below {root!r}", hint=hint)
