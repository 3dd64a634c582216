"""The reason of a container's end, where Kubernetes looks for it: ``kubectl describe pod`` shows it.

Imports no library: it must be able to tell of an installation that lacks one, too.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fastload.cli.text import show_json

TERMINATION_LOG = "/dev/termination-log"
_KEPT_BYTES = 4096
"""What a kubelet keeps of it."""
_SHORT = 200


def leave_termination_message(reason: dict[str, Any], path: str) -> None:
    """Add the reason to the file at ``path``, where there is one."""
    if not os.path.isfile(path):
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(_shorten(reason) + "\n")
    except OSError as exc:  # it must not hide the reason itself
        print(f"fastload: {path}: {exc.strerror}", file=sys.stderr)


def _shorten(reason: dict[str, Any]) -> str:
    """As JSON of which a kubelet keeps all: it cuts what is longer at its beginning.

    Lists become shorter first, such as what is wrong with thirty files, and then texts.
    """
    error = dict(reason["error"])
    lists = {key: value for key, value in error.items() if isinstance(value, list | tuple)}
    while len(text := show_json({**reason, "error": error})) >= _KEPT_BYTES:
        longest = max(lists, key=lambda key: len(show_json(lists[key])), default=None)
        if longest is None or not lists[longest]:
            error = {key: value[:_SHORT] if isinstance(value, str) else value for key, value in error.items()}
            return show_json({**reason, "error": error})
        lists[longest] = lists[longest][: len(lists[longest]) // 2]
        error |= {**lists, "left_out": True}
    return text
