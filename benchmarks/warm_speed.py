"""``fastload warm`` beside what people write by hand: ``cp`` and ``sync``, ``curl`` and ``sha256sum``.

::

    python benchmarks/warm_speed.py /data/llama-4g --rounds 5        # a checkpoint by make_checkpoint.py
    python benchmarks/warm_speed.py /data/llama-4g --parts hub       # with its first shard

The contestants take turns; caches are dropped before each (root), and what is written is on the disk when the clock
stops.
The hub is the tests' own, in a process of its own on loopback, so that it costs all of them the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from hub_process import REPO, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FASTLOAD = [sys.executable, "-m", "fastload"]


def time_command(command: list[str], environment: Mapping[str, str], folder: Path, ready: list[str]) -> float:
    """Seconds from start to the last byte on the disk, beginning with empty caches but for the program itself.

    ``ready`` brings that back: a second of reading Python's modules says nothing of a model of any size.
    """
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    subprocess.run(ready, env={**os.environ, **environment}, cwd=folder, check=True, capture_output=True)
    begin = time.perf_counter()
    subprocess.run(command, env={**os.environ, **environment}, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def mount_contestants(model: Path) -> dict[str, Callable[[Path], float]]:
    """From a folder on the same disk to another one."""

    def warm(folder: Path) -> float:
        environment = {"FASTLOAD_LOCAL": str(folder / "local"), "FASTLOAD_SHARED": str(model.parent)}
        command = [*_FASTLOAD, "warm", model.name, "--tiers", "local,shared", "--no-progress", "--min-free", "0"]
        return time_command(command, environment, folder, [*command, "--dry-run"])

    def copy(folder: Path) -> float:
        return time_command(["sh", "-c", f"cp -r '{model}' copy && sync -f copy"], {}, folder, ["cp", "--version"])

    return {"fastload warm": warm, "cp + sync": copy}


def hub_contestants(url: str, digest: str) -> dict[str, Callable[[Path], float]]:
    """From loopback; all of them check the file's sha256."""

    def warm(folder: Path) -> float:
        environment = {"FASTLOAD_LOCAL": str(folder / "local"), "HF_ENDPOINT": url}
        command = [*_FASTLOAD, "warm", REPO, "--tiers", "local,hub", "--no-progress", "--min-free", "0"]
        return time_command(command, environment, folder, [*command, "--dry-run"])

    def curl(folder: Path) -> float:
        source = f"{url}/{REPO}/resolve/main/model.safetensors"
        check = f"echo '{digest}  file' | sha256sum -c --quiet"
        return time_command(
            ["sh", "-c", f"curl -sSfL -o file '{source}' && {check} && sync file"], {}, folder, ["curl", "--version"]
        )

    return {"fastload warm": warm, "curl + sha256sum": curl}


def measure(
    title: str, contestants: Mapping[str, Callable[[Path], float]], nbytes: int, asked: argparse.Namespace
) -> None:
    """Take turns, and print a line for each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(asked.rounds):
        order = list(contestants)[:: 1 if number % 2 else -1]
        for name in order:
            with tempfile.TemporaryDirectory(dir=asked.model.parent, prefix="warm-speed-") as folder:
                seconds[name].append(contestants[name](Path(folder)))
    first, other = (median(times) for times in seconds.values())
    print(f"{title}: {nbytes / 1e9:.2f} GB, {asked.rounds} rounds, caches dropped")
    for name, times in seconds.items():
        spread = f"{min(times):.2f}-{max(times):.2f}"
        print(f"  {name:18} {median(times):6.2f} s  {spread}  {nbytes / median(times) / 1e9:.2f} GB/s")
    print(f"  speed of warm by that of the other: {other / first:.2f}", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=lambda text: Path(text).absolute(), help="a checkpoint to bring up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=["mount", "hub"], default=["mount", "hub"])
    asked = parser.parse_args()
    shards = sorted(asked.model.glob("*.safetensors"))
    if "mount" in asked.parts:
        measure("mount", mount_contestants(asked.model), sum(path.stat().st_size for path in shards), asked)
    if "hub" in asked.parts and shutil.which("curl"):
        digest = hashlib.sha256(shards[0].read_bytes()).hexdigest()
        with serving({"model.safetensors": shards[0]}) as url:
            measure("hub", hub_contestants(url, digest), shards[0].stat().st_size, asked)


if __name__ == "__main__":
    main()
