"""Named pipes in the place of files hold nobody up: a sample of what ``make test-faults`` does longer."""

from __future__ import annotations

from arena import in_memory
from piped import IMPORTED, put_pipes
from workers import TORCH, Worker


def test_a_named_pipe_holds_nobody_up() -> None:
    with Worker((*TORCH, *IMPORTED)) as worker, in_memory() as folder:
        row = put_pipes(worker, folder, every=3)
        row.check()
        assert row.ends["exit 0"]
