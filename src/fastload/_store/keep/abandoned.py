"""What was about to be renamed in a plain folder when its writer was killed: nobody holds a lease there, or sweeps.

Where the file system has files without names hardly any of it is left. It goes when it is a day old, at the next verify
that may write to the folder.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from fastload._store.admit.area import StagingArea
from fastload._store.containment import check_own_folders
from fastload._store.keep.leftovers import ABANDONED_S, Age
from fastload._verify.path import OURS
from fastload.errors import StoreError

_MADE = re.compile(r"(?:mended|[0-9a-f]{40}\.json)\.[0-9a-f]{16}")
"""Copies of files that were to be mended, stamps and manifests."""


def sweep_abandoned(folder: str) -> None:
    """Remove it from the plain ``folder``; what resists stays, and so does all of it behind a link that leads out."""
    area, age = StagingArea(os.path.join(folder, OURS)), Age(time.time_ns(), ABANDONED_S)
    with suppress(StoreError):
        check_own_folders(folder)
        for path in map(area.part, area.find_remains(_MADE)):
            if age.is_idle(path):
                with suppress(OSError):
                    os.unlink(path)
