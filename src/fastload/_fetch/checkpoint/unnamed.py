"""The warning of tensors that an index does not name, which are left out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastload.errors import quoted

if TYPE_CHECKING:
    from fastload._format.checkpoint import Checkpoint

_log = logging.getLogger("fastload")
_SHOWN = 8


def warn_of_unnamed(checkpoint: Checkpoint, folder: str) -> None:
    """Say what of ``checkpoint``, in ``folder``, is left out: a scale among it makes garbage of a weight."""
    unnamed = list(checkpoint.find_unnamed())
    if unnamed:
        shown = ", ".join(map(quoted, unnamed[:_SHOWN])) + (", …" if len(unnamed) > _SHOWN else "")
        tensors = "1 tensor" if len(unnamed) == 1 else f"{len(unnamed)} tensors"
        _log.warning("%s: left out, since the index does not name it: %s (%s)", quoted(folder), tensors, shown)
