"""Named pipes where files are kept: whoever opens one without a thought waits for a writer, for ever.

Whoever can write to a tier can put one anywhere. Each verb must end nevertheless, well or by an error of ours.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import fastload
from results import Row
from stored_models import COMMIT, write_cache, write_folder, write_tree
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from workers import Worker

IMPORTED = ("fastload.cli.pin",)
_PATIENCE_S = 20.0
_SHARD = "model.safetensors"
_REPO = "models--org--name"
_VERBS = (("load", "org/name"), ("warm", "org/name"), ("verify", "org/name"), ("ls",), ("pin", "org/name"))
_PLAIN_VERBS = (("load", "plain"), ("warm", "plain"), ("verify", "plain", "--record"), ("ls",))
_OURS = ("manifests/{}.json", "stamps/{}.json", "marks/{}.json", "reports/{}.jsonl", "pins/{}")


def _places() -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
    """Where in the folder of a case, and which verbs come there."""
    key = hashlib.sha256(one_tensor()).hexdigest()
    inside = (
        *(f".fastload/{name.format(COMMIT)}" for name in _OURS),
        *(f".fastload/{where}/{key}.0123456789abcdef" for where in ("journals", "staging")),
        f"snapshots/{COMMIT}/{_SHARD}",
        f"snapshots/{COMMIT}/config.json",
        f"trees/{COMMIT}.json",
        "refs/main",
    )
    for tier in ("local", "mount"):
        for path in inside:
            yield f"{tier}/{_REPO}/{path}", _VERBS
    for path in ("org--name.lease", "room.lock"):
        yield f"local/.locks/fastload/{path}", _VERBS
    notes = f".cache/huggingface/download/{_SHARD}.metadata"
    for path in (f".fastload/manifests/{COMMIT}.json", "config.json", INDEX_NAME, "model_index.json", "a.gguf", notes):
        yield f"mount/plain/{path}", _PLAIN_VERBS
    yield "config.toml", (("ls",),)


def put_pipes(worker: Worker, folder: Path, *, every: int = 1) -> Row:
    """A pipe in each place, and what reads it; of all these cases each ``every``-th."""
    row = Row("a named pipe in the place of a file: each verb ends")
    base, case = folder / "base", folder / "case"
    _make(base)
    cases = [(place, words) for place, verbs in _places() for words in verbs]
    for place, words in cases[::every]:
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(base, case, symlinks=True)
        if place.startswith("mount/"):
            shutil.rmtree(case / "local")  # so that the mount serves
        _put(case / place)
        row.add(f"{place}, {words}", *_run(worker, words, _environ(case)))
    return row


def _make(base: Path) -> None:
    files = {_SHARD: one_tensor(), "config.json": b"{}"}
    write_tree(write_cache(base / "mount", "org/name", COMMIT, files), files)
    write_folder(base / "mount/plain", files)
    (base / "config.toml").write_text("")
    options = fastload.Options(
        local=str(base / "local"), shared=str(base / "mount"), tiers=("local", "shared"), write_through="on"
    )
    fastload.load("org/name", options=options)


def _put(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def _environ(case: Path) -> Mapping[str, str]:
    return {
        "FASTLOAD_LOCAL": str(case / "local"),
        "FASTLOAD_SHARED": str(case / "mount"),
        "FASTLOAD_TIERS": "local,shared",
        "FASTLOAD_CONFIG": str(case / "config.toml"),
    }


def _run(worker: Worker, words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, str | None]:
    """How it ended, and what was wrong with that."""
    job = worker.start("forge:command", *words, environ=environ)
    until_s = time.monotonic() + _PATIENCE_S
    while not job.has_ended and time.monotonic() < until_s:
        time.sleep(0.01)
    if not job.has_ended:
        job.kill(signal.SIGKILL)
        job.wait()
        return "hangs", f"still there after {_PATIENCE_S:g} s"
    done = job.wait()
    return f"exit {done.code}", None if done.is_typed else done.err[-300:]
