"""Load a checkpoint, look at one tensor, and see what the load did.

python examples/load.py ./path/to/model [device]
"""

from __future__ import annotations

import sys

import fastload


def main(model: str, device: str = "cpu") -> None:
    """Load ``model`` to ``device`` three ways."""
    weights = fastload.load(model, device=device)
    name, tensor = next(iter(weights.items()))
    print(f"{len(weights)} tensors; the first is {name}: {tensor.dtype} {list(tensor.shape)} on {tensor.device}")
    report = weights.report
    print(f"{report.bytes / 1e6:.1f} MB in {report.seconds:.3f} s by {report.reader} ({report.reader_reason})")
    print(f"bound by {report.bottleneck}")

    # One tensor after another: what is let go is freed, so the model may be larger than memory.
    largest = max(fastload.stream(model, device=device), key=lambda item: item[1].nbytes)
    print(f"the largest is {largest[0]}: {largest[1].nbytes / 1e6:.1f} MB")

    # Only some, and in another precision. Blocks of 4 MiB without anything wanted are not read.
    some = fastload.load(model, device=device, tensors=lambda name: name.endswith(".bias"), dtype="BF16")
    print(f"{len(some)} biases in BF16, {some.report.bytes_read / 1e6:.1f} MB read")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except fastload.FastloadError as error:
        sys.exit(f"{error}")
