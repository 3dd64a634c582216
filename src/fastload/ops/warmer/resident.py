"""Round after round, until somebody ends the process."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from fastload._store.filesystem import remove_file
from fastload._store.replacing import write_whole
from fastload.ops.warmer.upkeep import run_round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload.ops.warmer.upkeep import Round, Upkeep


def stay(upkeep: Upkeep, every_s: float, ready_file: str | None, tell: Callable[[Round], None]) -> NoReturn:
    """Never returns; what ends the process, such as SIGTERM, is raised where it waits or works.

    Args:
        upkeep: what each round does.
        every_s: between the end of a round and the begin of the next.
        ready_file: is there while all that is listed is; it goes when the process does.
        tell: is told of each round.

    Raises:
        StoreError: the ready file cannot be written.
    """
    with _ready_file(ready_file) as show:
        while True:
            done = run_round(upkeep)
            tell(done)
            show(done)  # last: who sees that it is ready may read all else, or end the process
            time.sleep(every_s)


@contextmanager
def _ready_file(path: str | None) -> Iterator[Callable[[Round], None]]:
    """Gives what shows a round; one that a dead process has left is taken away first."""
    if path is None:
        yield lambda _: None
        return
    remove_file(path)
    try:
        yield lambda done: _show(path, done)
    finally:
        remove_file(path)


def _show(path: str, done: Round) -> None:
    if not done.is_ready:
        remove_file(path)
        return
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    content = json.dumps({**done.to_dict(), "finished": finished}) + "\n"
    write_whole(path, content.encode(), os.path.dirname(path))
