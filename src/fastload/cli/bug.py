"""What nobody expected: a bug of fastload, or an installation that lacks something. It ends with 1, and says where."""

from __future__ import annotations

import traceback
from typing import Any

BUG = 1


def explain_bug(error: BaseException) -> dict[str, Any]:
    """The facts of an error that is not ours, and where it was raised."""
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)][-1:]
    said = "".join(traceback.format_exception_only(error)).strip()
    place = f", in {where[0]}" if where else ""
    message = f"this is a bug, or a broken installation: {said}{place}. Report it with its traceback, please"
    return {"type": type(error).__name__, "message": message, "where": where}


def show_traceback(error: BaseException) -> str:
    """As Python itself would."""
    return "".join(traceback.format_exception(error))
