"""``warm`` and ``stream`` of models that are much larger than what their memory cgroup allows."""

from __future__ import annotations

import filecmp
import hashlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memory_group import memory_group
from results import Row
from warming import FASTLOAD, MIB, Tiers
from writing import entry, shard_bytes, write_index

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "model"
_STREAM = """
import hashlib, json, sys, fastload
with fastload.stream(sys.argv[1], verify="require") as stream:
    digests = {name: hashlib.sha256(memoryview(tensor.numpy())).hexdigest() for name, tensor in stream}
    evidence = stream.report.evidence
print(json.dumps({"digests": digests, "evidence": evidence}))
"""


@dataclass(frozen=True)
class Large:
    """A model, of random bytes, and how much memory there is for it."""

    tensors: int
    """In two shards."""
    tensor_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        model_bytes = self.tensors * self.tensor_bytes
        return (
            f"{model_bytes >> 20:,} MiB, of which a tensor has {self.tensor_bytes >> 20}, in {self.limit_bytes >> 20}"
        )

    def write(self, folder: Path) -> dict[str, str]:
        """Write it; the digest of each tensor."""
        folder.mkdir(parents=True)
        digests: dict[str, str] = {}
        weight_map: dict[str, str] = {}
        for shard in (1, 2):
            file = f"model-0000{shard}-of-00002.safetensors"
            names = [f"layer.{n}" for n in range(shard - 1, self.tensors, 2)]
            digests |= dict(self._write_shard(folder / file, names))
            weight_map |= dict.fromkeys(names, file)
        write_index(folder, weight_map)
        return digests

    def _write_shard(self, path: Path, names: list[str]) -> Iterator[tuple[str, str]]:
        size = self.tensor_bytes
        header = {name: entry("U8", [size], n * size, (n + 1) * size) for n, name in enumerate(names)}
        with path.open("wb") as file:
            file.write(shard_bytes(header))
            for name in names:
                content = np.random.default_rng(int(name.partition(".")[2])).bytes(size)
                file.write(content)
                yield name, hashlib.sha256(content).hexdigest()


def bring_and_stream(folder: Path, model: Large) -> Row:
    """``warm`` from a mount, then ``stream`` what was warmed. ``folder`` is on a disk: in memory, it would count."""
    tiers = Tiers(folder)
    digests = model.write(tiers.shared / _NAME)
    row = Row(f"`warm` and `stream` in a memory cgroup ({model} MiB)")
    with memory_group(model.limit_bytes) as group:
        warmed = group.run([*FASTLOAD, "warm", _NAME], tiers.environment)
        row.add("warm", f"warm: exit {warmed.returncode}", _judge_warm(warmed, tiers))
        streamed = group.run([sys.executable, "-c", _STREAM, _NAME], tiers.environment | {"FASTLOAD_TIERS": "local"})
        row.add("stream", f"stream: exit {streamed.returncode}", _judge_stream(streamed, digests))
    return row


def _judge_warm(done: subprocess.CompletedProcess[str], tiers: Tiers) -> str | None:
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-500:]}"
    snapshot = tiers.folder / done.stdout.strip()
    names = [path.name for path in (tiers.shared / _NAME).iterdir() if path.is_file()]
    _, differ, failed = filecmp.cmpfiles(tiers.shared / _NAME, snapshot, names, shallow=False)
    return f"not as the source: {differ + failed}" if differ or failed else None


def _judge_stream(done: subprocess.CompletedProcess[str], digests: dict[str, str]) -> str | None:
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-500:]}"
    found = json.loads(done.stdout)
    if found["evidence"] != "manifest":
        return f"proven by {found['evidence']}"
    return None if found["digests"] == digests else "other tensors than were written"


QUICK = Large(tensors=18, tensor_bytes=32 * MIB, limit_bytes=512 * MIB)
FULL = Large(tensors=64, tensor_bytes=64 * MIB, limit_bytes=512 * MIB)
