"""Named pipes in the place of files hold nobody up: a sample of what ``make test-faults`` does longer."""

from __future__ import annotations

from arena import in_memory
from piped import put_pipes
from workers import shared_worker


def test_a_named_pipe_holds_nobody_up() -> None:
    with in_memory() as folder:
        row = put_pipes(shared_worker(torch=True), folder, every=3)
        row.check()
        assert row.ends["exit 0"]
