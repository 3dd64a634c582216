"""How fast the block digests are taken on a GPU: a table of GB/s, and exit code 1 where a slot's are below the target.

    python benchmarks/device_digest.py                    # target: 300 GB/s, for an H100-class card

By CUDA events around many digests in a row, with several widths of a program: of one staging slot (16 MiB, what a load
digests at a time) from a CUDA graph, which is the kernels alone, and as Python calls them; and of 1 GiB, which is what
the card could do. The digests are compared with the CPU's.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

import torch
from blake3 import blake3

from fastload._place.gpu_digest import BlockDigester, to_hex
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOT_BYTES = 16 << 20  # 16 MiB
_SLAB_CHUNKS = (32, 64, 128, 256)


def in_graph(run: Callable[[], object], times: int) -> Callable[[], object]:
    """``run``, ``times`` over, without Python between its kernels."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    return graph.replay


def measure(run: Callable[[], object], nbytes: int, times: int) -> float:
    """GB/s where each of ``times`` runs digests ``nbytes``, after one that is not counted."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    run()
    begin.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    elapsed_ms: float = begin.elapsed_time(end)
    return nbytes * times / elapsed_ms / 1e6


def measure_row(buffer: torch.Tensor, slab_chunks: int | None) -> tuple[float, float, float]:
    """GB/s for a slot from a graph, for a slot from Python, for the whole of ``buffer``.

    ``slab_chunks``: of a program of Triton's; None: by the kernels that are brought along.
    """
    digester = BlockDigester(buffer.device, buffer.numel(), slab_chunks=slab_chunks)
    slot = partial(digester.digest, buffer[:_SLOT_BYTES], _SLOT_BYTES)
    whole = partial(digester.digest, buffer, buffer.numel())
    slot()  # compiled before it is captured
    return (
        measure(in_graph(slot, 100), 100 * _SLOT_BYTES, 10),
        measure(slot, _SLOT_BYTES, 1000),
        measure(whole, buffer.numel(), 20),
    )


def check(buffer: torch.Tensor, slab_chunks: int | None) -> None:
    """The first slot's digests are those of the CPU."""
    digester = BlockDigester(buffer.device, _SLOT_BYTES, slab_chunks=slab_chunks)
    content = bytes(buffer[:_SLOT_BYTES].cpu().numpy())
    expected = [blake3(content[at : at + BLOCK_BYTES]).hexdigest() for at in range(0, _SLOT_BYTES, BLOCK_BYTES)]
    assert to_hex(digester.digest(buffer, _SLOT_BYTES)) == expected


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=300, help="GB/s that a slot's digests must reach")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    buffer = torch.randint(256, (1 << 30,), dtype=torch.uint8, device="cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'chunks a program':>16}{'16 MiB':>10}{'by Python':>10}{'1 GiB':>10}  (GB/s)")
    best = 0.0
    for slab_chunks in _SLAB_CHUNKS:
        check(buffer, slab_chunks)
        row = measure_row(buffer, slab_chunks)
        best = max(best, row[0])
        print(f"{slab_chunks:16}{row[0]:10.0f}{row[1]:10.0f}{row[2]:10.0f}", flush=True)
    return int(best < arguments.target)


if __name__ == "__main__":
    sys.exit(main())
