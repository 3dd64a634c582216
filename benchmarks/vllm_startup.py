"""How long `vllm serve MODEL` takes to start, by phases, with its own loader and with fastload.

By the clock of whoever reads its log, so that phases add up to the whole. Run it where vLLM is:

    build/vllm/bin/python benchmarks/vllm_startup.py MODEL --rounds 3 [--cached] [-- FLAGS OF vllm serve]
"""

from __future__ import annotations

import argparse
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from fastload.ops.bench.page_cache import evict, fill

_PHASES = (
    ("imports, arguments, config", re.compile(r"Initializing a V1 LLM engine")),
    ("engine's processes", re.compile(r"Starting to load model")),
    ("model without weights", re.compile(r"Initializing model took")),
    ("weights", re.compile(r"Loading weights took ([\d.]+) seconds")),
    ("warm-up, KV cache", re.compile(r"init engine \(profile, create kv cache, warmup model\) took")),
    ("server", re.compile(r"Application startup complete")),
)
"""Each ends with a line of vLLM's log."""


def measure(model: str, load_format: str, flags: list[str]) -> dict[str, float]:
    """Seconds by phase of one start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = [sys.executable, str(Path(sys.executable).with_name("vllm")), "serve", model, "--load-format", load_format]
    command = [*vllm, "--host", "127.0.0.1", "--port", str(port), *flags]
    found: dict[str, float] = {}
    waiting = list(_PHASES)
    begin_s = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if waiting and waiting[0][1].search(line):
                now_s = time.monotonic()
                found[waiting.pop(0)[0]] = now_s - begin_s
                begin_s = now_s
                if not waiting:
                    server.send_signal(signal.SIGINT)
    if waiting:
        raise SystemExit(f"{load_format}: vLLM ended before the line of {waiting[0][0]!r}")
    return found


def render(rounds: dict[str, list[dict[str, float]]]) -> str:
    """Medians and the range of the whole, as a table."""
    formats = list(rounds)
    lines = [f"| seconds | {' | '.join(formats)} |", f"|---|{'---|' * len(formats)}"]
    for phase, _ in _PHASES:
        cells = [f"{median(each[phase] for each in rounds[name]):.2f}" for name in formats]
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    totals = {name: [sum(each.values()) for each in rounds[name]] for name in formats}
    cells = [f"{median(all_):.1f} ({min(all_):.1f}-{max(all_):.1f})" for all_ in totals.values()]
    return "\n".join([*lines, f"| until it serves | {' | '.join(cells)} |"])


def main() -> int:
    """Interleave the load formats, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="with the weights in the page cache; else without")
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    shards = [str(path) for path in Path(arguments.model).glob("*.safetensors")]
    rounds: dict[str, list[dict[str, float]]] = {"safetensors": [], "fastload": []}
    how = ""
    for _ in range(arguments.rounds):
        for load_format, done in rounds.items():
            how = fill(shards) if arguments.cached else evict(shards, may_drop_all=True)
            done.append(measure(arguments.model, load_format, flags))
            print(load_format, {phase: round(seconds, 2) for phase, seconds in done[-1].items()}, file=sys.stderr)
    print(f"{sum(Path(shard).stat().st_size for shard in shards) / 1e9:.2f} GB; weights before each start: {how}\n")
    print(render(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
