"""A host that loads weights again asks for an iterator, and drops it when its model wants no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._verify.evidence_kind import EvidenceKind

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    import torch

    from fastload._load.stream.stream import Stream


def until_dropped(opened: Stream, log: logging.Logger) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of ``opened``. An error that is raised when the iterator is dropped, nobody hears: so it is told."""
    with opened:
        try:
            yield from opened
        except GeneratorExit:
            opened.close()
            if opened.report.evidence == EvidenceKind.NONE:
                log.warning("a reload stopped before the end: %s", opened.report.evidence_reason)
            raise
