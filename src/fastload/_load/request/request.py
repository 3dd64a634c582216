"""What a caller wants of a checkpoint: which tensors, and as which dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload._load.request.globs import Globs
from fastload._load.request.near import find_near
from fastload._read.ledger import Ledger
from fastload.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from fastload._fetch.find.model import Source
    from fastload._format.checkpoint import Checkpoint
    from fastload._group.pending import PendingCommunicator
    from fastload._progress import Callback
    from fastload.options import Settings

Tensors = str | Sequence[str] | Callable[[str], bool]
"""A glob, several globs, or a predicate of the name."""

_TENSORS_HINT = "Give a glob, a sequence of globs or a predicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A caller's keywords, with the settings decided. Needs no torch: keywords are checked before it is imported."""

    source: Source
    tensors: Tensors | None
    dtype: torch.dtype | str | None
    progress: bool | Callback | None
    settings: Settings
    deadline: Deadline
    """See :func:`begin_deadline`."""
    ledger: Ledger = field(default_factory=Ledger)
    """Of all tries."""
    group: PendingCommunicator | None = None
    """Where the ranks meet that load together; None: this one alone."""
    shard: object = None
    """See :mod:`fastload._load.request.shard`."""
    host_above_bytes: int | None = None
    """A tensor of a stream to a device that is larger than this is handed out in host memory."""
    may_begin_anew: bool = False
    """True of a load by one process that hands out nothing before its end: :mod:`fastload._load.retry.once_more`."""


def begin_deadline(source: Source, settings: Settings) -> Deadline:
    """That of a load of ``source``; it counts from now: importing torch takes time, too."""
    hint = "Raise the deadline, or bring the model up first: fastload warm"
    return Deadline(settings.deadline, f"loading {source.name}", hint)


def choose_tensors(checkpoint: Checkpoint, tensors: Tensors | None) -> Callable[[str], bool]:
    """The predicate that ``tensors=`` means, which asks the caller's once per name; None means all.

    Raises:
        UsageError: a glob that matches nothing in ``checkpoint``, with the names nearest to it; or neither glob nor
        predicate.
    """
    if tensors is None:
        return lambda _: True
    if callable(tensors):
        return functools.cache(tensors)
    if not isinstance(tensors, Iterable):
        raise UsageError(f"tensors= got {type(tensors).__name__}", _TENSORS_HINT)
    names = dict.fromkeys(info.name for _, info in checkpoint.tensors())
    globs = Globs()
    for text in [tensors] if isinstance(tensors, str) else tensors:
        if not isinstance(text, str):
            raise UsageError(f"tensors= got {type(text).__name__}", _TENSORS_HINT)
        if not globs.add(text, names):
            raise _matches_none(text, names)
    return functools.cache(globs)


def _matches_none(text: str, names: Collection[str]) -> UsageError:
    near = find_near(text, names)
    hint = f"Nearest: {', '.join(map(quoted, near))}" if near else "See the names with fastload inspect"
    return UsageError(f"tensors= {quoted(text)} matches none of {len(names)} tensors", hint)
