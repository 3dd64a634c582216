"""One load of a file that changes meanwhile: runs in a process of its own, since what is looked for includes signals.

``run(case)`` prints ``{"end": …}`` as JSON: ``old`` or ``new`` (all tensors of the one content), the name of an error
of ours, or ``mixed``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from typing import TYPE_CHECKING, Any

import torch

import fastload
from fastload.errors import FastloadError
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TENSOR_BYTES = 500_000
_TENSORS = 40
DEADLINE_S = 30.0


def content_of(seed: int) -> bytes:
    """A shard of 20 MB; two seeds differ in each tensor and in nothing else."""
    stream = hashlib.shake_128(str(seed).encode()).digest(_TENSORS * _TENSOR_BYTES)
    parts = {
        f"t{n:02}": ("U8", [_TENSOR_BYTES], stream[n * _TENSOR_BYTES : (n + 1) * _TENSOR_BYTES])
        for n in range(_TENSORS)
    }
    return pack(parts)


def _write(path: str, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)


def _replace(path: str, content: bytes) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(content)
    os.replace(f"{path}.new", path)


def _part(path: str, content: bytes, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content[at : at + 100_000])


def _grow(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _unmount(path: str) -> None:
    subprocess.run(["umount", "-l", os.path.dirname(path)], check=True)


def _changes(path: str, content: bytes, at: int) -> dict[str, Callable[[], None]]:
    return {
        "truncated": lambda: os.truncate(path, at),
        "emptied": lambda: os.truncate(path, 0),
        "grown": lambda: _grow(path),
        "replaced": lambda: _replace(path, content),
        "rewritten": lambda: _write(path, content),
        "rewritten in part": lambda: _part(path, content, at),
        "deleted": lambda: os.unlink(path),
        "unmounted": lambda: _unmount(path),
    }


KINDS = ("truncated", "emptied", "grown", "replaced", "rewritten", "rewritten in part", "deleted", "unmounted")
APIS = {
    "auto": ("load", "stream", "load_into"),
    "direct": ("load", "stream", "load_into"),
    "buffered": ("load", "stream", "load_into"),
    "mmap": ("load", "load_into"),
}
"""By reader. By mmap no ``stream``, which hands mapped tensors out at once: what becomes of these is not promised."""


def _content(path: str) -> bytes:
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


def run(case: Mapping[str, Any]) -> int:
    """Load, and change the file in the midst of it."""
    rng = random.Random(case["seed"])  # noqa: S311 - a case, no secret
    path, old, new = case["path"], content_of(1), content_of(2)
    act = _changes(path, new, rng.randrange(len(old)))[case["kind"]]
    pending, moment = [act], rng.random() * 0.95

    def change(done_bytes: int, total_bytes: int) -> None:
        if pending and done_bytes >= moment * total_bytes:
            pending.pop()()

    if case["before"]:
        pending.pop()()
        old = _content(path)
    begin_s = time.monotonic()
    try:
        end = _judge(_load(case, change), old, new)
    except FastloadError as error:
        end = type(error).__name__
    late = time.monotonic() - begin_s > DEADLINE_S + 5
    print(json.dumps({"end": "late" if late else end, "changed": not pending}))  # noqa: T201 - for the sweep
    return 0


def _load(case: Mapping[str, Any], change: Callable[[int, int], None]) -> Mapping[str, torch.Tensor]:
    folder = os.path.dirname(case["path"])
    more: dict[str, Any] = {
        "reader": case["reader"],
        "progress": change,
        "options": fastload.Options(staging_bytes=4 << 20, deadline=DEADLINE_S),
    }
    if case["api"] == "load":
        return fastload.load(folder, **more)
    if case["api"] == "stream":
        with fastload.stream(folder, **more) as stream:
            return dict(stream)
    module = torch.nn.Module()
    for n in range(_TENSORS):
        module.register_buffer(f"t{n:02}", torch.zeros(_TENSOR_BYTES, dtype=torch.uint8))
    fastload.load_into(module, folder, **more)
    return dict(module.named_buffers())


def _judge(loaded: Mapping[str, torch.Tensor], old: bytes, new: bytes) -> str:
    begin = len(new) - _TENSORS * _TENSOR_BYTES
    found = b"".join(loaded[f"t{n:02}"].numpy().tobytes() for n in range(_TENSORS))
    return "old" if found == old[begin:] else "new" if found == new[begin:] else "mixed"
