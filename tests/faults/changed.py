"""Loads of files that change meanwhile, each in a process of its own: an error of ours or the right tensors."""

from __future__ import annotations

import json
import os
import random
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from changing_load import APIS, KINDS, content_of
from results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workers import Done, Worker


def change_under_loads(worker: Worker, folder: Path, count: int, seed: int = 6) -> Row:
    """``count`` random cases; those that need a mount only where this user may mount."""
    row = Row("the file changes under a load")
    rng = random.Random(seed)  # noqa: S311 - cases, no secrets
    kinds = KINDS if os.geteuid() == 0 else KINDS[:-1]
    for number in range(count):
        kind, reader = rng.choice(kinds), rng.choice(list(APIS))
        with _place(folder / str(number), kind) as place:
            path = place / "model.safetensors"
            path.write_bytes(content_of(1))
            case = {
                "path": str(path),
                "kind": kind,
                "reader": reader,
                "api": rng.choice(APIS[reader]),
                "seed": number,
                "before": kind != "unmounted" and rng.random() < 0.1,
            }
            done = worker.start("changing_load:run", case).wait()
        end, wrong = _judge(done)
        row.add(f"{case}", end, wrong)
    return row


@contextmanager
def _place(folder: Path, kind: str) -> Iterator[Path]:
    folder.mkdir()
    if kind != "unmounted":
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _judge(done: Done) -> tuple[str, str | None]:
    if done.code:
        return f"exit {done.code}", f"exit {done.code}: {done.err[-500:]}"
    end = json.loads(done.out.splitlines()[-1])["end"]
    return end, end if end in {"mixed", "late", "UsageError"} else None
