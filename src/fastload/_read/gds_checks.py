"""May GPUDirect Storage be tried here? Cheap questions, all of which must be answered before cuFile is touched.

Touching it is not harmless: libcufile 1.16 and later spins for ever, in C, where ``/proc/modules`` does not exist, as
in Firecracker and gVisor; and where nvidia-fs is loaded but its device node is missing, as in many containers, its
error path closes descriptor 0. Nor is it of use on file systems where it would read through the host itself.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from fastload._read.file import open_regular, regular_only, translate
from fastload._read.kernel import cached_fraction, direct_alignment, file_system
from fastload.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._read.reader import File
    from fastload._settings.cufile import CufileSettings

_P2PDMA_KERNEL = (6, 2)
_BY_DISK = frozenset({"ext4", "xfs"})
_BY_NETWORK = frozenset({"lustre", "gpfs", "beegfs"})
_WARM = 0.5
_MAX_CONFIG_BYTES = 1 << 20  # 1 MiB


def check_machine(cufile: CufileSettings, *, root: str = "") -> str:
    """Why cuFile must not be touched on this machine; empty where it may be.

    Args:
        cufile: how it was set up.
        root: where /proc, /dev and /sys are; another one in tests.
    """
    if not os.path.exists(f"{root}/proc/modules"):
        return "/proc/modules does not exist: libcufile would wait for it for ever"
    has_nvidia_fs = _number(_text(f"{root}/proc/driver/nvidia-fs/devcount")) > 0
    if has_nvidia_fs and not os.path.exists(f"{root}/dev/nvidia-fs0"):
        return "nvidia-fs is loaded, but /dev/nvidia-fs0 is not in this container"
    if has_nvidia_fs or (_asks_for_p2pdma(cufile) and _kernel(root) >= _P2PDMA_KERNEL):
        return ""
    return "neither nvidia-fs is loaded nor PCI peer-to-peer DMA configured for cuFile"


def check_file(file: File, *, allows_cached: bool, root: str = "") -> str:
    """Why ``file`` is not for GPUDirect Storage; empty where it may be.

    Args:
        file: the shard.
        allows_cached: True if it is taken past the page cache even where it lies there, which is slower.
        root: as for :func:`check_machine`.

    Raises:
        FormatError, StoreError: it cannot be looked at.
    """
    descriptor = open_regular(file.path)
    try:
        kind = file_system(descriptor)
        if not direct_alignment(descriptor):
            return f"{kind} takes no O_DIRECT"
        if why := _check_storage(kind, file.identity.dev, root):
            return why
        cached = 0.0 if allows_cached else cached_fraction(descriptor, file.identity.size)
    except OSError as exc:
        raise translate(file.path, exc) from exc
    finally:
        os.close(descriptor)
    return f"{cached:.0%} of it is in the page cache" if cached >= _WARM else ""


def _check_storage(kind: str, device: int, root: str) -> str:
    if kind in _BY_NETWORK:
        return ""
    if kind == "nfs":
        return "" if "proto=rdma" in _mount_options(device, root) else "this NFS mount does not use RDMA"
    if kind not in _BY_DISK:
        return f"cuFile reads {kind} through the host"
    slow = [name for name in _disks(device, root) if not name.startswith("nvme")]
    return f"{kind} lies on {slow[0]}, which is no NVMe disk" if slow else ""


def _disks(device: int, root: str) -> Iterator[str]:
    """The disks under a block device: itself, or those of a RAID or a logical volume."""
    at = os.path.realpath(f"{root}/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    pending = [at]
    while pending:
        folder = pending.pop()
        slaves = f"{folder}/slaves"
        below = sorted(os.listdir(slaves)) if os.path.isdir(slaves) else []
        pending += [os.path.realpath(os.path.join(slaves, name)) for name in below]
        if not below:
            yield os.path.basename(folder)


def _mount_options(device: int, root: str) -> str:
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.split(" ") for line in _text(f"{root}/proc/self/mountinfo").split("\n"))
    return next((fields[-1] for fields in lines if number in fields[2:3]), "")


def _asks_for_p2pdma(cufile: CufileSettings) -> bool:
    """The configuration is JSON with comments, so a key is looked for and nothing parsed."""
    lines = (line.partition("//")[0] for line in _text(cufile.config).splitlines())
    return cufile.uses_p2pdma or any(re.search(r'"use_pci_p2pdma"\s*:\s*true', line) for line in lines)


def _kernel(root: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", _text(f"{root}/proc/sys/kernel/osrelease"))
    return tuple(map(int, match.groups())) if match else (0, 0)


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _text(path: str) -> str:
    """What a file of the system says; empty where it is not there, or not for us."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=regular_only) as file:
            return file.read(_MAX_CONFIG_BYTES)
    except (OSError, FormatError):
        return ""
