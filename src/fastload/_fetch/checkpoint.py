"""Resolve → headers: everything about a checkpoint that needs neither torch nor its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastload._format.checkpoint import Checkpoint, Shard, build_checkpoint
from fastload._format.header import parse_object
from fastload._read.file import read_header, read_small_file
from fastload._store.directory import find_files
from fastload._store.ref import parse_path

_MAX_CONFIG_BYTES = 16 << 20  # 16 MiB


@dataclass(frozen=True, slots=True)
class Source:
    """What to load: where it is, and which revision of it."""

    model: str | os.PathLike[str]
    subfolder: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A checkpoint whose headers were read and agreed, and where it came from."""

    checkpoint: Checkpoint
    folder: str
    tier: str
    commit: str | None


def fetch(source: Source) -> Fetched:
    """The checkpoint that ``source`` means; reads headers and the index only.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError: as :func:`fastload.load` says.
    """
    files = find_files(parse_path(source.model), subfolder=source.subfolder, variant=source.variant)
    shards = [Shard(name, path, *read_header(path)) for name, path in files.shards]
    return Fetched(build_checkpoint(shards, files.index), files.folder, tier="path", commit=None)


def is_quantised(folder: str) -> bool:
    """True if the model's config.json says that its weights are quantised.

    Raises:
        FormatError: the config is there but is no JSON object.
    """
    path = os.path.join(folder, "config.json")
    if not os.path.lexists(path):
        return False
    return bool(parse_object(read_small_file(path, _MAX_CONFIG_BYTES), path).get("quantization_config"))
