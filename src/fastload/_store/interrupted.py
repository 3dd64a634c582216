"""What tells that somebody's download or copy of weights was interrupted, where no listing and no index does."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from fastload._format.gguf import GGUF_SUFFIX, CutError, measure_gguf
from fastload._format.json_object import parse_object
from fastload._read.file import read_small_file, regular_only, translate
from fastload._store.directory import contained, containment_root
from fastload._store.wanted import is_weight
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastload._store.offer import OfferedFile

_UNDER_WAY = (".aria2", ".part", ".partial", ".crdownload", ".incomplete")
"""Behind the name of a file: aria2 keeps its notes so, beside a file of full length; others call the file itself so."""
_PIPELINE = "model_index.json"
_MAX_PIPELINE_BYTES = 1 << 20  # 1 MiB
_OPTIONAL = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Components that people leave away, and that a pipeline runs without."""
_GGUF_STARTS = (1 << 20, 16 << 20, 128 << 20)
"""How much of a GGUF file is read, in bytes, until its header ends: as a rule a few MiB of vocabulary."""


def find_under_way(there: Iterable[OfferedFile]) -> Iterator[str]:
    """Weights that a download tool says it has not finished."""
    for file in there:
        name, suffix = posixpath.splitext(file.path)
        if suffix in _UNDER_WAY and is_weight(name):
            yield f"a download that was not finished ({quoted(file.path)})"


def find_cut_gguf(folder: str, there: Iterable[OfferedFile]) -> Iterator[str]:
    """GGUF files that are shorter than their headers say."""
    root = containment_root(folder)
    for file in there:
        if not file.path.endswith(GGUF_SUFFIX):
            continue
        try:
            least = _least_bytes(contained(os.path.join(folder, file.path), root), file.size)
        except FormatError as exc:
            yield f"{quoted(file.path)}: {exc.found}, expected {exc.expected}"
            continue
        if least > file.size:
            yield f"{quoted(file.path)} has {file.size:,} of at least {least:,} bytes"


def _least_bytes(path: str, size: int) -> int:
    """What the header of a GGUF file says; 0 where it says nothing that is understood."""
    for nbytes in _GGUF_STARTS:
        try:
            with open(path, "rb", opener=regular_only) as file:
                start = file.read(nbytes)
        except OSError as exc:
            raise translate(path, exc) from exc
        try:
            return measure_gguf(start) or 0
        except CutError:
            if len(start) >= size:
                return size + 1  # not even the header is all there
    return 0


def find_missing_components(folder: str, there: Iterable[OfferedFile]) -> Iterator[str]:
    """What the index of a diffusers pipeline names that is not there: components, or the weights of one."""
    paths = [file.path for file in there]
    if _PIPELINE not in paths:
        return
    for component in _read_components(folder):
        inside = [path for path in paths if path.startswith(f"{component}/")]
        if not inside and component not in _OPTIONAL:
            yield f"no {quoted(component)}, which {quoted(_PIPELINE)} names"
        elif f"{component}/config.json" in inside and not any(map(is_weight, inside)):
            yield f"no weights in {quoted(component)}"


def _read_components(folder: str) -> list[str]:
    """The names that stand for a class of a library; null is a component that was left away."""
    path = os.path.join(folder, _PIPELINE)
    try:
        path = contained(path, containment_root(folder))
        index = parse_object(read_small_file(path, _MAX_PIPELINE_BYTES), path)
    except FormatError:
        return []
    return [name for name, value in index.items() if isinstance(value, list) and len(value) == 2 and all(value)]  # noqa: PLR2004
