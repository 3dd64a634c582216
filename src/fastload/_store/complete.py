"""Is a stored snapshot whole? By a listing, or else by what the files say of each other.

Each check returns what is missing, as phrases for people; none means complete.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING

from fastload._format.gguf import GGUF_SUFFIX
from fastload._format.index import SHARD_SUFFIX, show_tensors
from fastload._read.head import read_header
from fastload._store.directory import contained, containment_root, read_index
from fastload._store.interrupted import find_cut_gguf, find_missing_components, find_under_way
from fastload._store.listing import find_unfinished
from fastload._store.wanted import is_weight, matches
from fastload.errors import FormatError, StoreError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fastload._store.offer import OfferedFile

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})(?P<rest>.*\.[a-z][\w]*)", re.DOTALL)
_ANY_INDEX = re.compile(r".+\.safetensors\.index(?:\.[\w-]+)?\.json", re.DOTALL)


_NEEDED = (
    "*.safetensors", "*.safetensors.index*.json", "config.json", "*/config.json", "model_index.json",
    "tokenizer*", "*/tokenizer*",
)  # fmt: skip
"""Of what ``warm`` takes, that without which a model does not load. The rest is read by people, or by few programs."""


def needed_of(named: Iterable[OfferedFile]) -> Iterator[OfferedFile]:
    """Those of ``named`` without which a model does not load."""
    return (file for file in named if matches(file.path, _NEEDED))


def find_missing_of_listing(there: Iterable[OfferedFile], named: Iterable[OfferedFile]) -> Iterator[str]:
    """What a listing names that is not there at its size."""
    sizes = {file.path: file.size for file in there}
    for file in named:
        if file.path not in sizes:
            yield f"no {quoted(file.path)}"
        elif sizes[file.path] != file.size:
            yield f"{quoted(file.path)} has {sizes[file.path]:,} of {file.size:,} bytes"


def find_missing_by_structure(folder: str, there: Sequence[OfferedFile]) -> Iterator[str]:
    """What the weights in ``folder`` need that is not there; without any weights, that.

    An index must have its shards, a numbered set all its numbers, a pipeline its components, and each shard the length
    that its header says; and no tool says of one that it is under way. GGUF is no format of ours, but ``warm`` brings
    it where it is asked to.
    """
    sizes = {file.path: file.size for file in there}
    weights = [path for path in sizes if path.endswith(SHARD_SUFFIX)]
    foreign = [path for path in sizes if path.endswith(GGUF_SUFFIX)]
    if not weights and not foreign:
        yield "no safetensors weights"
    for path in sizes:
        if _ANY_INDEX.fullmatch(path):
            yield from _missing_of_index(folder, path, sizes)
    yield from find_missing_numbers([*weights, *foreign])
    root = containment_root(folder)
    for path in weights:
        try:
            read_header(contained(os.path.join(folder, path), root))
        except FormatError as exc:
            yield f"{quoted(path)}: {exc.found}, expected {exc.expected}"
    yield from find_cut_gguf(folder, there)
    yield from find_missing_components(folder, there)
    yield from find_under_way(there)


def find_missing_of_plain(folder: str, there: Sequence[OfferedFile]) -> Iterator[str]:
    """The same of a plain folder, into which the hub's own client may be downloading."""
    yield from find_missing_by_structure(folder, there)
    unfinished = find_unfinished(folder)
    if unfinished is not None:
        yield f"a download that was not finished ({quoted(unfinished)})"


def _missing_of_index(folder: str, path: str, sizes: Mapping[str, int]) -> Iterator[str]:
    try:
        index = read_index(contained(os.path.join(folder, path), containment_root(folder)))
    except FormatError as exc:
        yield f"{quoted(path)}: {exc.found}, expected {exc.expected}"
        return
    missing = [shard for shard in index.shards if posixpath.join(posixpath.dirname(path), shard) not in sizes]
    held = index.by_shard() if missing else {}
    for shard in missing:
        yield f"no {quoted(shard)}, which {quoted(path)} names for {show_tensors(held[shard])}"


def find_missing_numbers(weights: Iterable[str]) -> Iterator[str]:
    """What the numbers ``-00001-of-00002`` of weights, of whatever format, say that there should be too."""
    numbered = [match for match in map(_NUMBERED.fullmatch, weights) if match]
    sets: dict[tuple[str, str, str], set[int]] = {}
    for match in numbered:
        sets.setdefault((match["stem"], match["count"], match["rest"]), set()).add(int(match["number"]))
    for (stem, count, rest), numbers in sets.items():
        missing = next((n for n in range(1, int(count) + 1) if n not in numbers), None)
        if missing is not None:
            yield f"no {quoted(f'{stem}-{missing:05}-of-{count}{rest}')}"


def find_missing_of_foreign(there: Iterable[OfferedFile]) -> Iterator[str]:
    """What weights of other formats, which no listing speaks for, need of each other; without any, that."""
    weights = [file.path for file in there if is_weight(file.path)]
    if not weights:
        yield "no weights"
    yield from find_missing_numbers(weights)


def find_unfinished_blob(blobs: str) -> str | None:
    """The name of a blob that a hub client has begun and not finished, if there is one.

    Its temporary file is called ``<etag>.<8 hex>.incomplete`` (``<etag>.incomplete`` before 1.0); one whose blob is
    there by now was left by a client that was killed, and means nothing.
    """
    try:
        names = set(os.listdir(blobs))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(blobs, f"cannot be read ({exc.strerror})", "Give this user read permission") from exc
    for name in sorted(names):
        if name.endswith(".incomplete") and name.partition(".")[0] not in names:
            return name
    return None
