"""GPU, driver, torch's CUDA and what GPUDirect Storage needs; told without starting CUDA, which takes seconds."""

from __future__ import annotations

import ctypes.util
import glob
import os
import re
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastload._read.gds_checks import check_machine
from fastload._system_file import read_text
from fastload.ops.doctor.finding import NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._settings.cufile import CufileSettings

_DRIVER = re.compile(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s")
_CUDA_OF_TORCH = re.compile(r"^cuda\b[^=]*=\s*'([\d.]+)'", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What there is of a way to a GPU."""

    devices: int
    """Device nodes that this container has."""
    driver: str | None
    torch: str | None
    torch_cuda: str | None
    """The CUDA version torch was built for; None: it was built for the CPU, or is not installed."""
    kvikio: str | None
    has_cufile: bool
    has_nvidia_fs: bool
    """The kernel module by which cuFile reads past the host."""
    gds_obstacle: str
    """Why a load would not touch cuFile on this machine; empty where it may."""


def look_at_gpu(cufile: CufileSettings, *, root: str = "") -> Gpu:
    """Ask the driver's files and the installed packages.

    Args:
        cufile: how cuFile was set up.
        root: where /proc and /dev are; another one in tests.
    """
    kvikio = [version for name in ("kvikio-cu13", "kvikio-cu12", "kvikio") if (version := version_of(name))]
    return Gpu(
        devices=len(glob.glob(f"{root}/dev/nvidia[0-9]*")),
        driver=parse_driver(read_text(f"{root}/proc/driver/nvidia/version")),
        torch=version_of("torch"),
        torch_cuda=parse_torch_cuda(_read_version_of_torch()),
        kvikio=next(iter(kvikio), None),
        has_cufile=ctypes.util.find_library("cufile") is not None or bool(kvikio),
        has_nvidia_fs=os.path.exists(f"{root}/proc/driver/nvidia-fs"),
        gds_obstacle=check_machine(cufile, root=root),
    )


def parse_driver(text: str) -> str | None:
    """The version in ``/proc/driver/nvidia/version``."""
    match = _DRIVER.search(text)
    return match[1] if match else None


def parse_torch_cuda(text: str) -> str | None:
    """The version in ``torch/version.py``."""
    match = _CUDA_OF_TORCH.search(text)
    return match[1] if match else None


def judge_gpu(gpu: Gpu, *, has_udev: bool) -> Iterator[Finding]:
    """What keeps weights from a GPU that is there, or from getting there past the host."""
    if gpu.devices and gpu.torch is not None and gpu.torch_cuda is None:
        yield Finding(
            severity=WARNING,
            what=f"there is a GPU, and torch {gpu.torch} is built for the CPU",
            why="device=cuda ends with 20",
            cure="pip install torch --index-url https://download.pytorch.org/whl/cu130",
        )
    if gpu.driver is not None and not gpu.devices:
        yield Finding(
            severity=WARNING,
            what=f"the driver {gpu.driver} is loaded, and this container has no GPU",
            why="device=cuda ends with 20",
            cure="resources: {limits: {nvidia.com/gpu: 1}}; with Docker: --gpus all",
        )
    if gpu.devices and gpu.kvikio is not None and gpu.gds_obstacle:
        yield Finding(
            severity=NOTE,
            what=f"kvikio is installed, but {gpu.gds_obstacle}",
            why="so loads go by host memory, and reader=gds ends with 20",
            cure="On the node: modprobe nvidia-fs (GPU operator: gds.enabled=true)",
        )
    if gpu.devices and gpu.has_nvidia_fs and not has_udev:
        yield Finding(
            severity=NOTE,
            what="/run/udev is not there",
            why="cuFile learns from it which disk lies below a file system, and falls back without",
            cure="volumes: [{name: udev, hostPath: {path: /run/udev}}], mounted read-only (a privileged namespace)",
        )


def version_of(distribution: str) -> str | None:
    """Of an installed package; None: it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _read_version_of_torch() -> str:
    spec = find_spec("torch")  # finds it without importing it
    if spec is None or not spec.origin:
        return ""
    return read_text(os.path.join(os.path.dirname(spec.origin), "version.py"))
