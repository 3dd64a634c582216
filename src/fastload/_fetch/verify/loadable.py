"""What a load of a plain folder refuses though each file in it may be right: a set with a gap, a shard that is none."""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from fastload._fetch.verify.checking import FileVerdict
from fastload._finding import Finding
from fastload._format.index import SHARD_SUFFIX
from fastload._format.select import by_rule, list_variants
from fastload._read.file import check_regular
from fastload._store.directory import find_files
from fastload._store.listing import list_paths
from fastload._verify.path import is_index
from fastload.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def require_weights(folder: str) -> None:
    """Raise what a load raises of ``folder``, in which no file is a weight.

    Raises:
        FormatError: that there are none, or what is called as weights are and is no file.
    """
    for _, error in _find_refusals(folder):
        raise error
    find_files(folder, subfolder=None, select=by_rule())


def add_refusals(folder: str, verdicts: Sequence[FileVerdict]) -> tuple[FileVerdict, ...]:
    """``verdicts`` of the files in ``folder``, with what a load refuses of them that they do not say yet."""
    by_path = {verdict.path: verdict for verdict in verdicts}
    told = {posixpath.dirname(verdict.path) for verdict in verdicts if _tells_of_others(folder, verdict)}
    for path, error in _find_refusals(folder):
        verdict = by_path.get(path) or FileVerdict(path=path, nbytes=0, evidence="none", findings=())
        is_of_file = error.path == os.path.join(folder, path)
        if posixpath.dirname(path) in told or (is_of_file and _is_wrong(verdict)):
            continue
        finding = Finding(
            path=path, block=None, offset=0, found=error.found, expected=error.expected, repaired=False
        )  # fmt: skip
        by_path[path] = replace(verdict, findings=(*verdict.findings, finding))
    return tuple(sorted(by_path.values(), key=attrgetter("path")))


def _tells_of_others(folder: str, verdict: FileVerdict) -> bool:
    """True of an index that is wrong and of a file that is gone: a load refuses the shards beside it for just that."""
    is_gone = not os.path.lexists(os.path.join(folder, verdict.path))
    return _is_wrong(verdict) and (is_index(verdict.path) or is_gone)


def _is_wrong(verdict: FileVerdict) -> bool:
    return not all(finding.repaired for finding in verdict.findings)


def _find_refusals(folder: str) -> Iterator[tuple[str, FormatError]]:
    """Of each checkpoint in ``folder`` and below it, by the path of a file in it: why no header of it would be read."""
    for below, names in sorted(_group(list_paths(folder)).items()):
        for variant in list_variants(names):
            try:
                files = find_files(folder, subfolder=below, select=by_rule(variant))
                for _, path in files.shards:
                    check_regular(path, os.stat(path))
            except UsageError:  # several to choose from, and nothing is wrong with any
                continue
            except FormatError as exc:
                is_of_set = exc.path == os.path.join(folder, below).rstrip("/")
                yield (posixpath.join(below, min(names)) if is_of_set else os.path.relpath(exc.path, folder)), exc


def _group(paths: Iterable[str]) -> dict[str, list[str]]:
    """The names of shards and indexes, whatever is called so, by folder."""
    grouped: dict[str, list[str]] = {}
    for path in paths:
        below, name = posixpath.split(path)
        if name.endswith((SHARD_SUFFIX, ".json")) and list_variants([name]):
            grouped.setdefault(below, []).append(name)
    return grouped
