"""What parsing takes: a header or an index that fits by how it is weighed must fit, whatever strangers wrote."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice, product
from typing import TYPE_CHECKING

import pytest

from fastload._budget import MEMORY_PER_JSON_BYTE
from large import BRIM
from writing import INDEX_NAME, one_tensor, shard_bytes

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 9 << 19  # 4.5 MiB: a little more than what is not weighed, of which half is what a header may have to spare
INSPECT = r"""if True:
    import contextlib, pathlib, re, sys
    import fastload

    def read(name):
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(name + r":\s+(\d+) kB", status)[1]) << 10

    for path in sys.argv[1:]:
        before = read("VmRSS")
        with contextlib.suppress(fastload.FormatError):  # an index may name what its shard does not hold
            fastload.inspect(path)
    print(read("VmHWM") - before)
"""
"""Print how much memory the last of some models takes to be inspected, beyond what there is after the others."""


def measure(model: Path) -> int:
    """Bytes that it takes to inspect ``model``, in a process that has parsed nothing large before."""
    small = model.with_name("small.safetensors")
    small.write_bytes(one_tensor())
    arguments = [sys.executable, "-c", INSPECT, str(small), str(model)]
    return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("case", BRIM)
def test_a_header_takes_no_more_than_it_is_weighed_as(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.safetensors"
    raw = BRIM[case](SIZE).raw
    path.write_bytes(shard_bytes(raw))
    assert 5 * len(raw) < measure(path) <= MEMORY_PER_JSON_BYTE * len(raw)


def test_nor_does_an_index_of_short_names(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(shard_bytes(b"{}"))
    names = map("".join, product(map(chr, range(35, 91)), repeat=4))
    entries = (f'"{name}":"a.safetensors"' for name in islice(names, SIZE // 23))
    path = tmp_path / INDEX_NAME
    path.write_text(f'{{"x":"\U0001f600","weight_map":{{{",".join(entries)}}}}}')
    assert 5 * SIZE < measure(path) <= MEMORY_PER_JSON_BYTE * path.stat().st_size
