"""Agreement before bytes: what the ranks of a group are about to do is compared before any of them does it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._load.group.fetching import names_path
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._fetch.fetched import Fetched
    from fastload._format.header import TensorInfo
    from fastload._load.request import Request

_HINT = "Call fastload with the same arguments and settings on every rank of the group"
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Content:
    """What one rank found, told from other content as well as it can be."""

    commit: str | None
    headers: str
    """A digest of what the headers say."""
    sha256: str | None
    """A digest of the shards' digests, where all are known."""
    blocks: str | None
    """The same, of the digests of blocks."""


def check_terms(terms: Mapping[int, Mapping[str, object]]) -> None:
    """Raise ``GroupError`` where the ranks' terms, by name, differ."""
    first, *others = terms
    for rank in others:
        for name, value in terms[rank].items():
            expected = terms[first].get(name)
            if value != expected:
                raise GroupError(_differ(name, first, expected, rank, value), _HINT)


def check_content(found: Mapping[int, Content]) -> None:
    """Raise ``GroupError`` where the ranks found different content; what one of them does not know cannot differ."""
    for name, hint in (
        ("commit", "Name the commit: name@commit"),
        ("headers", "They have different models there: bring up the same one on every machine"),
        ("sha256", "They have different weights there: bring up the same ones on every machine"),
        ("blocks", "They have different weights there: bring up the same ones on every machine"),
    ):
        known = {rank: value for rank, each in found.items() if (value := getattr(each, name)) is not None}
        for rank, value in known.items():
            first = next(iter(known))
            if value != known[first]:
                raise GroupError(_differ(name, first, known[first], rank, value), hint)


def _differ(name: str, first: int, expected: object, rank: int, found: object) -> str:
    shown = (repr(value)[:_SHOWN] for value in (expected, found))
    return f"the ranks disagree on {name}: rank {first} has {next(shown)}, rank {rank} {next(shown)}"


def terms_of(request: Request, verb: str, device: str) -> dict[str, object]:
    """What must be the same on all ranks. A path may lead to the same model by another name on each."""
    source = request.source
    return {
        "the call": verb,
        "the model": None if names_path(request) else str(source.model),
        "revision": source.revision,
        "subfolder": source.subfolder,
        "variant": source.variant,
        "dtype": None if request.dtype is None else str(request.dtype).removeprefix("torch."),
        "verify": request.settings.verify,
        "the kind of device": device,
    }


def digest_of(fetched: Fetched, wanted: Sequence[TensorInfo]) -> Content:
    """What ``fetched`` is, and what of it is wanted."""
    shards = fetched.checkpoint.shards
    lines = [f"{shard.name} {shard.header.file_bytes}" for shard in shards]
    lines += [f"{info.name} {info.dtype.name} {info.shape} {info.begin} {info.end}" for info in wanted]
    known = [fetched.evidence.find(shard.path) for shard in shards]
    sha256s = [file.sha256 for file in known if file is not None and file.sha256 is not None]
    blocks = [line for file in known if file is not None and file.blocks is not None for line in file.blocks]
    has_blocks = all(file is not None and file.blocks is not None for file in known)
    return Content(
        commit=fetched.commit,
        headers=_digest(lines),
        sha256=_digest(sha256s) if len(sha256s) == len(shards) else None,
        blocks=_digest(blocks) if has_blocks else None,
    )


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
