"""What a checkpoint holds, from its headers alone; needs no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from fastload._collector import collector_paused
from fastload._fetch.checkpoint.fetch import fetch
from fastload._fetch.deadline import Deadline
from fastload._verify.evidence_kind import EvidenceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.find.model import Source
    from fastload._format.checkpoint import Shard
    from fastload.options import Settings


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor as it is stored."""

    dtype: str
    """The spelling of the file, such as ``BF16``."""
    shape: tuple[int, ...]
    nbytes: int
    shard: str


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """One file."""

    name: str
    path: str
    nbytes: int
    tensors: int
    metadata: Mapping[str, str]
    evidence: str
    """What a load would prove it by, as its report calls it; nothing was proven here."""
    digest: str | None
    """What that says of the whole file: ``sha256:…`` or ``git-sha1:…``; None where nobody has said so."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A checkpoint's tensors by name, in the order of the files."""

    path: str
    tensors: Mapping[str, TensorFacts]
    metadata: Mapping[str, str]
    """What the shards' headers say, taken together; where two disagree, the first one's word."""
    shards: tuple[ShardFacts, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors there are of each dtype, most first."""
        return dict(Counter(tensor.dtype for tensor in self.tensors.values()).most_common())

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types, with the number of their schema."""
        return {"schema": 1, "bytes": self.nbytes, "dtypes": self.dtypes, **asdict(self)}


def inspect_source(source: Source, settings: Settings) -> Inspection:
    """What ``source`` holds."""
    fetched = fetch(source, settings, Deadline(settings.deadline, f"inspecting {source.name}"))
    try:
        with collector_paused():
            return _describe(fetched)
    finally:
        fetched.close()


def _describe(fetched: Fetched) -> Inspection:
    shards = fetched.checkpoint.shards
    tensors = {
        info.name: TensorFacts(info.dtype.name, info.shape, info.nbytes, shards[number].name)
        for number, info in fetched.checkpoint.tensors()
    }
    counts = Counter(tensor.shard for tensor in tensors.values())
    metadata: dict[str, str] = {}
    for shard in reversed(shards):
        metadata.update(shard.header.metadata)
    facts = tuple(
        ShardFacts(
            name=shard.name,
            path=shard.path,
            nbytes=shard.header.file_bytes,
            tensors=counts[shard.name],
            metadata=shard.header.metadata,
            **_known_of(shard, fetched.evidence),
        )
        for shard in shards
    )
    return Inspection(fetched.folder, tensors, metadata, facts)


class _Known(TypedDict):
    evidence: str
    digest: str | None


def _known_of(shard: Shard, evidence: Evidence) -> _Known:
    known = evidence.find(shard.path)
    if known is None:
        return {"evidence": EvidenceKind.NONE.value, "digest": None}
    digests = {EvidenceKind.SHA256: known.sha256, EvidenceKind.GIT_SHA1: known.git_sha1}
    digest = next((f"{name}:{value}" for name, value in digests.items() if value is not None), None)
    return {"evidence": evidence.kind_of(known).value, "digest": digest}
