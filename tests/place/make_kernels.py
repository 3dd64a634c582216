"""Writes what the digests' kernels compile to: the code that fastload brings along. `make code`, by the pinned Triton.

python make_kernels.py FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.knobs import nvidia

from fastload._place import gpu_digest_kernel
from fastload._place.gpu_digest_code import ASSEMBLED, CAPABILITY, KERNELS, Kernel, code_name

_PTX_VERSION = 80
"""CUDA 12.0: what drivers since 525 take."""
_POINTERS = {"hash_slabs": ("buffer", "*u8", "values"), "hash_blocks": ("values", "*i32", "digests")}
_ALIGNED = [["tt.divisibility", 16]]


def compile_ptx(kernel: Kernel) -> str:
    """The code of one kernel, for the oldest generation of devices that it is brought along for."""
    of, kind, to = _POINTERS[kernel.name]
    source = ASTSource(
        getattr(gpu_digest_kernel, kernel.name),
        {of: kind, "length": "i32", to: "*i32", "lanes": "constexpr"},
        constexprs={"lanes": kernel.lanes},
        attrs={(0,): _ALIGNED, (2,): _ALIGNED},
    )
    options = {"num_warps": kernel.threads // 32, "ptx_version": _PTX_VERSION, **gpu_digest_kernel.OPTIONS}
    compiled = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)
    assert compiled.metadata.shared == kernel.shared_bytes
    return strip(compiled.asm["ptx"])


def assemble(ptx: str, capability: int) -> bytes:
    """By the assembler that Triton brings along, whose version makes the same bytes each time."""
    with TemporaryDirectory() as folder:
        Path(folder, "kernel.ptx").write_text(ptx, encoding="ascii")
        command = [nvidia.ptxas.path, f"-arch=sm_{capability}", "kernel.ptx", "-o", "kernel.cubin"]
        subprocess.run(command, check=True, cwd=folder)
        return Path(folder, "kernel.cubin").read_bytes()


def strip(ptx: str) -> str:
    """Without comments, and without what only a debugger reads: lines of the source, and sections behind the code."""
    code = re.sub(r"^\s*\.section\b.*", "", ptx, flags=re.DOTALL | re.MULTILINE)
    lines = (re.sub(r"\s*//.*$", "", line) for line in code.splitlines())
    labels = re.compile(r"\$L__(tmp|func_begin|func_end)\d+:")
    kept = [line for line in lines if line.strip() and not re.match(r"\s*\.(loc|file)\b", line)]
    return "\n".join(line for line in kept if not labels.fullmatch(line.strip())) + "\n"


def main() -> None:
    """Write the PTX of each kernel, and what it is assembled to."""
    folder = Path(sys.argv[1])
    for kernel in KERNELS:
        head = f"// Made by tests/place/make_kernels.py of gpu_digest_kernel.py, with Triton {triton.__version__}.\n"
        ptx = head + compile_ptx(kernel)
        for capability in (None, *ASSEMBLED.values()):
            code = ptx.encode("ascii") if capability is None else assemble(ptx, capability)
            (folder / code_name(kernel, capability)).write_bytes(zlib.compress(code, 9))


if __name__ == "__main__":
    main()
