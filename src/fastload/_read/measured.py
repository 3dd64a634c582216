"""What was measured of this machine, kept for the next process: small facts by key, one file each.

Nothing here is believed beyond being a hint of what is fast: a file that is missing, foreign or torn is a measurement
not yet made, and a folder that cannot be written is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import Any

from fastload._read.file import regular_only
from fastload.errors import FormatError

_MAX_BYTES = 64 << 10  # 64 KiB


class Measured:
    """A folder of measurements; without one nothing is found and nothing kept."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """What was measured of ``kind`` for ``key``."""
        path = self._path(kind, key)
        try:
            with open(path, "rb", opener=regular_only) as file:
                facts = json.loads(file.read(_MAX_BYTES))
        except (OSError, FormatError, ValueError, RecursionError):
            return None
        # The key is in the file too: a digest cut short may meet another one.
        return facts if isinstance(facts, dict) and facts.get("key") == key else None

    def keep(self, kind: str, key: str, facts: dict[str, Any]) -> bool:
        """Remember ``facts``; False where they cannot be written."""
        if self._folder is None:
            return False
        scratch = ""
        try:
            os.makedirs(self._folder, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".", delete=False) as file:
                scratch = file.name
                json.dump({**facts, "key": key}, file)
            os.replace(scratch, self._path(kind, key))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            return False
        return True

    def _path(self, kind: str, key: str) -> str:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return os.path.join(self._folder or os.devnull, f"{kind}-{name}.json")
