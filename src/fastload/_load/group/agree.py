"""Agreement before bytes: what the ranks of a group are about to do is compared before any of them does it.

Three times: the terms when they have met, the content when each has found it, the plan when each has reckoned it. A
difference is one ``GroupError`` on all of them.

What must be the same is what decides which values are gathered and in which order, what is delivered, and how far it
is proven, since each rank hands out bytes that others have proven:

- the version of fastload, the function, the kind of device;
- the model (not where it is a path), ``revision``, ``subfolder``, ``variant``, ``dtype``;
- ``verify``, and the key that ``signature_key`` names, not the path of that file;
- commit, sizes, and the tensors that ``tensors=`` means, predicates included; digests, as far as they are known;
- which extents there are, who reads each, and by which way it goes on.

What may differ is a node's or a process's own: ``local``, ``shared``, ``tiers``, ``manifests``, aliases, hub and token
(what they lead to is compared as content); ``reader``, ``gds``, ``max_rate``, ``transfer``; ``write_through``,
``local_max_bytes``, ``min_free`` (the others are told what a node keeps); ``staging_bytes``, ``device_bytes`` (the
smallest extent is everybody's); ``deadline``, ``require_pinned``, ``strict`` (whom it stops, stops all); ``shard=``
(the others are told); ``progress``. So a node with a slow disk may be held to a rate, or read past its page cache.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from fastload._fetch.evidence.signed import read_key
from fastload._load.group.fetching import names_path
from fastload.errors import GroupError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.header import TensorInfo
    from fastload._load.request.request import Request
    from fastload._plan.share import Division

_HINT = "Call fastload with the same arguments and settings on every rank of the group"
_PLAN_HINT = "They have different code of fastload, or this is a bug: report it"
_SHOWN = 100
_NAMES = {"wanted": "tensors="}


@dataclass(frozen=True, slots=True)
class Content:
    """What one rank found, told from other content as well as it can be."""

    commit: str | None
    headers: str
    """A digest of what the headers say."""
    wanted: str
    """The tensors that ``tensors=`` means: how many, and a digest of their names."""
    sha256: str | None
    """A digest of the shards' digests, where all are known."""
    blocks: str | None
    """The same, of the digests of blocks."""


def check_terms(terms: Mapping[int, Mapping[str, object]], hint: str = _HINT) -> None:
    """Raise ``GroupError`` where the ranks' terms, by name, differ."""
    first, *others = terms
    for rank in others:
        for name, value in terms[rank].items():
            expected = terms[first].get(name)
            if value != expected:
                raise GroupError(_differ(name, first, expected, rank, value), hint)


def check_plans(digests: Mapping[int, str]) -> None:
    """Raise ``GroupError`` where ranks that load together have not the same plan."""
    check_terms({rank: {"the plan": digest} for rank, digest in digests.items()}, _PLAN_HINT)


def check_content(found: Mapping[int, Content]) -> None:
    """Raise ``GroupError`` where the ranks found different content; what one of them does not know cannot differ."""
    for name, hint in (
        ("commit", "Name the commit: name@commit"),
        ("headers", "They have different models there: bring up the same one on every machine"),
        ("wanted", "Give the same tensors= on every rank; a part of them for each is what shard= is for"),
        ("sha256", "They have different weights there: bring up the same ones on every machine"),
        ("blocks", "They have different weights there: bring up the same ones on every machine"),
    ):
        known = {rank: value for rank, each in found.items() if (value := getattr(each, name)) is not None}
        for rank, value in known.items():
            first = next(iter(known))
            if value != known[first]:
                raise GroupError(_differ(_NAMES.get(name, name), first, known[first], rank, value), hint)


def _differ(name: str, first: int, expected: object, rank: int, found: object) -> str:
    shown = (repr(value)[:_SHOWN] for value in (expected, found))
    return f"the ranks disagree on {name}: rank {first} has {next(shown)}, rank {rank} {next(shown)}"


def terms_of(request: Request, verb: str, device: str) -> dict[str, object]:
    """What must be the same on all ranks. A path may lead to the same model by another name on each."""
    source = request.source
    return {
        "the version of fastload": import_module("fastload").__version__,
        "the call": verb,
        "the model": None if names_path(request) else str(source.model),
        "revision": source.revision,
        "subfolder": source.subfolder,
        "variant": source.variant,
        "dtype": None if request.dtype is None else str(request.dtype).removeprefix("torch."),
        "verify": request.settings.verify,
        "the key of signature_key": _digest_key(request.settings.signature_key),
        "the kind of device": device,
    }


def _digest_key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return hashlib.sha256(read_key(path)).hexdigest()
    except (UsageError, StoreError):  # said where it is needed, if that is so on all ranks
        return "one that cannot be read"


def digest_of_plan(division: Division) -> str:
    """Who reads what, and by which way it goes on."""
    numbers = array("q")
    for extent, owner in zip(division.extents, division.owners, strict=True):
        numbers.extend((extent.shard, extent.offset, extent.length, owner))
    trees = repr([(owner, sorted(tree.items())) for owner, tree in sorted(division.trees.items())])
    return hashlib.sha256(numbers.tobytes() + trees.encode()).hexdigest()


def digest_of(fetched: Fetched, wanted: Sequence[TensorInfo]) -> Content:
    """What ``fetched`` is, and what of it is wanted."""
    shards, infos = fetched.checkpoint.shards, fetched.checkpoint.tensors()
    lines = [f"{shard.name} {shard.header.file_bytes}" for shard in shards]
    lines += [f"{info.name} {info.dtype.name} {info.shape} {info.begin} {info.end}" for _, info in infos]
    known = [fetched.evidence.find(shard.path) for shard in shards]
    sha256s = [file.sha256 for file in known if file is not None and file.sha256 is not None]
    blocks = [line for file in known if file is not None and file.blocks is not None for line in file.blocks]
    has_blocks = all(file is not None and file.blocks is not None for file in known)
    return Content(
        commit=fetched.commit,
        headers=_digest(lines),
        wanted=f"{len(wanted):,} tensors, digest {_digest([info.name for info in wanted])[:16]}",
        sha256=_digest(sha256s) if len(sha256s) == len(shards) else None,
        blocks=_digest(blocks) if has_blocks else None,
    )


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
