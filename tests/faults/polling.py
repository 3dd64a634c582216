"""Readers beside those who write: what they run, in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path

import fastload
from arena import REPO
from fastload import FastloadError, Options
from stored_models import COMMIT

_FOLDER = f"models--{REPO.replace('/', '--')}"


def poll(roots: str, digests: dict[str, str], count: int) -> int:
    """Look for the snapshot in the newest root, ``count`` times and until it is seen; what is seen must be whole."""
    ends: Counter[str] = Counter()
    partial: list[str] = []
    while ends.total() < count or not ends["whole"]:
        newest = max(os.listdir(roots), default="none", key=int)
        end = _look(Path(roots) / newest / _FOLDER / "snapshots" / COMMIT, digests)
        ends["whole" if end == "" else "absent" if end is None else "partial"] += 1
        if end:
            partial.append(end)
    print(json.dumps({"ends": ends, "partial": partial[:5]}))  # noqa: T201 - for the sweep
    return 0


def _look(snapshot: Path, digests: dict[str, str]) -> str | None:
    """What is wrong with it; nothing: it is whole; None: it is not there."""
    try:
        names = os.listdir(snapshot)
    except FileNotFoundError:
        return None
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = hashlib.sha256((snapshot / name).read_bytes()).hexdigest()
        except OSError as error:
            return f"{name}: {error}"
    return "" if found == digests else f"{sorted(found)}, or other bytes"


def load_until(stop: str, local: str, seed_bytes: dict[str, str]) -> int:
    """Load again and again until the file ``stop`` is there: right tensors, or an error of ours."""
    ends: Counter[str] = Counter()
    options = Options(local=local, shared="", tiers=("local",))
    while not os.path.exists(stop):
        try:
            tensors = fastload.load(REPO, options=options)
            found = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}
            ends["right" if found == seed_bytes else "wrong"] += 1
        except FastloadError as error:
            ends[type(error).__name__] += 1
            time.sleep(0.001)  # it is gone: others get a turn
    print(json.dumps({"ends": ends}))  # noqa: T201
    return 0
