"""A machine without a GPU that kvikio takes for one: the stub of CUDA's driver, compiled and loaded under its name."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

_SOURCE = Path(__file__).with_name("stub_libcuda.c")
_NAME = "libcuda.so.1"

WHY_NOT = (
    "a CUDA device is here, whose driver the stub would replace"
    if torch.cuda.is_available()
    else "no C compiler for the stub of CUDA's driver"
    if shutil.which("cc") is None
    else ""
)
needs_stub = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
needs_kvikio = pytest.mark.skipif(
    bool(WHY_NOT) or importlib.util.find_spec("kvikio") is None, reason=WHY_NOT or "kvikio is not installed (make gds)"
)


def compile_stub(folder: Path) -> Path:
    """The library, in ``folder``, under the driver's own name."""
    built = folder / _NAME
    subprocess.run(["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{_NAME}", "-o", built, _SOURCE], check=True)
    return built


@cache
def load_stub(folder: Path) -> Any:
    """The stub, for this process and all of its libraries: whoever asks for the driver from now on gets it."""
    return ctypes.CDLL(str(compile_stub(folder)), ctypes.RTLD_GLOBAL)
