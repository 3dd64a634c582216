"""Meetings of ranks that are threads of one process."""

from __future__ import annotations

import threading


def wait_meetings_over() -> None:
    """Rank 0 stays at the door until the last one has heard, which is a moment longer than that one."""
    for thread in threading.enumerate():
        if thread.name == "fastload-meeting":
            thread.join(5.0)
