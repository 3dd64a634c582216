"""Paths inside a snapshot: they come from strangers and are joined to a folder, so they are checked before that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastload._verify.training_state import is_training_state
from fastload._weights import OTHER_WEIGHTS
from fastload.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = ".fastload"
"""The folder where fastload keeps manifests: a file that a repo put there could pass for one."""
_MAX_PATH_BYTES = 1024
_MAX_PART_BYTES = 255
"""What file systems take."""
_MAX_DEPTH = 64
_HARMFUL = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
"""Control characters, the other separator, and what UTF-8 cannot spell.

Not ``str.isprintable``: what that takes grows with the Python version, and a manifest must mean the same to all.
"""


def is_index(path: str) -> bool:
    """True if it is called as the index of a sharded checkpoint is, of any variant."""
    name = path.rpartition("/")[2]
    return ".safetensors.index." in name and name.endswith(".json")


def is_any_index(path: str) -> bool:
    """True if it is called as an index is, of shards of whatever format."""
    name = path.rpartition("/")[2]
    return ".index." in name and name.endswith(".json")


def is_loaded(path: str) -> bool:
    """True if it decides which tensors a load gives: weights that are read, and their indexes."""
    return path.endswith(".safetensors") or is_index(path)


def is_vital(path: str) -> bool:
    """True if a load goes by it, so that no list of exceptions may hide it."""
    return is_loaded(path) or path.rpartition("/")[2] == "config.json"


def must_be_signed(path: str) -> bool:
    """True if no signer may leave it out: what a load goes by, and weights that other readers take, in any format."""
    return is_vital(path) or (path.endswith(OTHER_WEIGHTS) and not is_training_state(path))


class PathError(ValueError):
    """A path that may not stand in a snapshot; the text says which and why."""


def check_path_in_snapshot(path: Any) -> None:
    """Check that ``path`` is relative, plain, and stays in the folder it is joined to.

    Raises:
        PathError: it does not, or is no text.
    """
    if type(path) is not str:
        raise PathError("a path that is no text")
    if _HARMFUL.search(path):
        raise PathError(f"the path {quoted(path)}, with a character that no path should hold")
    if len(path.encode("utf-8")) > _MAX_PATH_BYTES:
        raise PathError(f"the path {quoted(path)}, longer than {_MAX_PATH_BYTES} bytes")
    parts = path.split("/")
    if len(parts) > _MAX_DEPTH:
        raise PathError(f"the path {quoted(path)}, deeper than {_MAX_DEPTH} folders")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise PathError(f"the path {quoted(path)}, which is not plain and relative")
    if parts[0] == OURS:
        raise PathError(f"the path {quoted(path)}, where fastload keeps its own files")
    if any(len(part.encode("utf-8")) > _MAX_PART_BYTES for part in parts):
        raise PathError(f"the path {quoted(path)}, with a name longer than {_MAX_PART_BYTES} bytes")


def check_paths_fit(paths: Sequence[str]) -> None:
    """Check that ``paths`` are sorted, each there once, and that none is a folder of another.

    Raises:
        PathError: names the first that breaks it.
    """
    there = set(paths)
    before = ""
    for path in paths:
        if path <= before:
            raise PathError(f"the path {quoted(path)} after {quoted(before)}")
        before = path
        above = path
        while above := above.rpartition("/")[0]:
            if above in there:
                raise PathError(f"the path {quoted(path)}, and {quoted(above)} as a file")
