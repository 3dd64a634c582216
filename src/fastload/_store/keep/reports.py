"""The reports of a snapshot's last loads, kept beside it on the local tier, so that a slow one can be told from usual.

One line of JSON each, the oldest first. They are told, not relied on: a line that is no report is passed over, and of
two loads that end at once one may be lost.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from fastload._read.file import regular_only
from fastload._store.filesystem import make_folder, new_id
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._store.layout import RepoLayout

_KEPT = 20
_MAX_BYTES = 1 << 20  # 1 MiB: a report has about 1 KiB
_log = logging.getLogger("fastload")


def keep_report(layout: RepoLayout, commit: str, facts: Mapping[str, Any]) -> None:
    """Add one, where this user may write; where not, nothing is kept, and the log says so."""
    path = layout.reports(commit)
    lines = [json.dumps(each) for each in (*read_reports(layout, commit)[1 - _KEPT :], facts)]
    temporary = f"{path}.{new_id()}"
    try:
        if not os.path.isdir(layout.ours()):
            return  # nothing of fastload's is there: not even the folder is made
        make_folder(os.path.dirname(path))
        with open(temporary, "x", encoding="utf-8") as file:  # not synced: what a power cut takes is no loss
            file.write("\n".join(lines) + "\n")
        os.replace(temporary, path)
    except (OSError, StoreError) as exc:
        _log.debug("the report is not kept: %s", exc)


def read_reports(layout: RepoLayout, commit: str) -> list[dict[str, Any]]:
    """The reports that are there, the oldest first."""
    try:
        with open(layout.reports(commit), encoding="utf-8", errors="replace", opener=regular_only) as file:
            lines = file.read(_MAX_BYTES).splitlines()
    except (OSError, FormatError):  # none yet, or not for this user
        return []
    reports = (_parse(line) for line in lines)
    return [report for report in reports if report is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None
