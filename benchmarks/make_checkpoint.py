"""Makes a checkpoint to measure with: Llama's names and shapes, as many bytes as asked for, and not one page of zeros.

The bytes are random, so that no file system compresses them, no two 4 MiB blocks are equal, and what is asked for twice
comes out the same. They are written as a stream: a checkpoint far larger than memory can be made.

    python benchmarks/make_checkpoint.py FOLDER --gib 4 --shard-gib 1
    python benchmarks/make_checkpoint.py FOLDER --tiny 8000
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from fastload.ops.bench.checkpoint import GIB, list_llama, list_tiny, write_checkpoint


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", help="where to; must be empty or not there")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--gib", type=float, default=4.0, help="size of a Llama-shaped checkpoint (default: 4)")
    what.add_argument("--tiny", type=int, metavar="N", help="one file of N tensors of 256 to 4,096 bytes instead")
    shards = parser.add_mutually_exclusive_group()
    shards.add_argument("--shards", type=int, metavar="N", help="that many files")
    shards.add_argument("--shard-gib", type=float, default=1.0, help="about how large a file is (default: 1)")
    return parser.parse_args()


def main() -> int:
    """Make what the command line asks for."""
    asked = _parse_arguments()
    weights = list_tiny(asked.tiny) if asked.tiny else list_llama(int(asked.gib * GIB))
    total = sum(weight.nbytes for weight in weights)
    os.makedirs(asked.folder, exist_ok=True)
    if os.listdir(asked.folder):
        print(f"{asked.folder!r} is not empty: name another folder, or remove it first", file=sys.stderr)
        return 2
    free = shutil.disk_usage(asked.folder).free
    if free < total + GIB:
        print(f"{asked.folder!r} has {free / GIB:.1f} GiB free, {total / GIB + 1:.1f} GiB are needed", file=sys.stderr)
        return 14
    write_checkpoint(asked.folder, weights, shards=asked.shards or max(1, round(total / GIB / asked.shard_gib)))
    print(f"{len(weights):,} tensors, {total:,} bytes ({total / GIB:.2f} GiB) in {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
