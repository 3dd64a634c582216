"""Resolve → headers: everything about a checkpoint that needs neither torch nor its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.resolve import parse_model, require, tiers_of
from fastload._format.checkpoint import Checkpoint, Shard, build_checkpoint
from fastload._format.header import parse_object
from fastload._read.file import read_header, read_small_file
from fastload._store.directory import find_files
from fastload._store.tiered import search

if TYPE_CHECKING:
    from fastload.options import Settings

_MAX_CONFIG_BYTES = 16 << 20  # 16 MiB


@dataclass(frozen=True, slots=True)
class Source:
    """What to load, and which part of it."""

    model: str | os.PathLike[str]
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A checkpoint whose headers were read and agreed, and where it came from."""

    checkpoint: Checkpoint
    folder: str
    tier: str
    commit: str | None
    commit_learnt: str | None


def fetch(source: Source, settings: Settings) -> Fetched:
    """The checkpoint that ``source`` means; reads headers and the index only.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError: as :func:`fastload.load` says.
    """
    place = _find(source, settings)
    files = find_files(place.folder, subfolder=source.subfolder, variant=source.variant)
    shards = [Shard(name, path, *read_header(path)) for name, path in files.shards]
    return Fetched(build_checkpoint(shards, files.index), files.folder, place.tier, place.commit, place.learnt)


@dataclass(frozen=True, slots=True)
class _Place:
    folder: str
    tier: str
    commit: str | None
    learnt: str | None


def _find(source: Source, settings: Settings) -> _Place:
    parsed = parse_model(source.model, source.revision, settings)
    if isinstance(parsed, str):
        return _Place(parsed, "path", None, None)
    stored = require(search(parsed, tiers_of(settings)))
    learnt = None
    if stored.commit is not None:
        is_pinned = any(candidate.is_pinned for candidate in parsed.candidates)
        learnt = "name" if is_pinned else stored.tier
    return _Place(stored.folder, stored.tier, stored.commit, learnt)


def is_quantised(folder: str) -> bool:
    """True if the model's config.json says that its weights are quantised.

    Raises:
        FormatError: the config is there but is no JSON object.
    """
    path = os.path.join(folder, "config.json")
    if not os.path.lexists(path):
        return False
    return bool(parse_object(read_small_file(path, _MAX_CONFIG_BYTES), path).get("quantization_config"))
