"""What a mount's options mean for loading weights from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload.ops.doctor.finding import NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload.ops.doctor.mountinfo import Mount
    from fastload.ops.doctor.mountstats import NfsStats

_WANTED_RSIZE = 1 << 20  # 1 MiB, the largest that Linux's client and server take
_SMALL_RSIZE = 256 << 10  # 256 KiB
_MIB = 1 << 20


def judge_mount(mount: Mount, stats: NfsStats | None, *, is_local: bool) -> Iterator[Finding]:
    """Findings on the mount of one tier.

    Args:
        mount: what the tier lies on.
        stats: what an NFS mount has done.
        is_local: the tier is the local one, which is meant to be a disk of this machine.
    """
    if mount.kind in {"nfs", "nfs4"}:
        yield from _judge_nfs(mount, stats)
    elif mount.kind.startswith("fuse"):
        yield _fuse(mount)
    if is_local:
        yield from _judge_local(mount)
    if any(option.endswith("quota") and option != "noquota" for option in mount.options):
        yield Finding(
            severity=NOTE,
            what=f"quotas are on at {mount.point}",
            why="a user's or project's quota may be less than the free space shown; warm then ends with 14",
            cure=f"quota -v; xfs_quota -x -c 'report -h' {mount.point}",
        )


def _judge_nfs(mount: Mount, stats: NfsStats | None) -> Iterator[Finding]:
    yield from _judge_rsize(mount)
    yield from _judge_transport(mount, stats)
    if "soft" in mount.options or "softerr" in mount.options:
        yield Finding(
            severity=WARNING,
            what=f"{mount.point} is mounted soft",
            why="a server that is slow for a while answers a read with an I/O error: loads end with 15 under load",
            cure=_remount(mount, "hard"),
        )
    local_lock = mount.options.get("local_lock", "none")
    if local_lock != "none" or "nolock" in mount.options:
        yield Finding(
            severity=NOTE,
            what=f"locks on {mount.point} are this machine's own (local_lock={local_lock})",
            why="machines that warm to it at once may bring the same bytes twice; nothing is damaged by that",
            cure=_remount(mount, "local_lock=none"),
        )


def _judge_rsize(mount: Mount) -> Iterator[Finding]:
    rsize = mount.number("rsize", _WANTED_RSIZE)
    if rsize < _SMALL_RSIZE:
        yield Finding(
            severity=WARNING,
            what=f"{mount.point} was negotiated to rsize={rsize} (up to {_WANTED_RSIZE} is possible)",
            why=f"each MiB costs {_MIB // max(1, rsize)} round trips instead of one",
            cure=f"{_remount(mount, f'rsize={_WANTED_RSIZE},wsize={_WANTED_RSIZE}')}; if it is still small, on the "
            f"server: echo {_WANTED_RSIZE} > /proc/fs/nfsd/max_block_size, before nfsd starts",
        )


def _judge_transport(mount: Mount, stats: NfsStats | None) -> Iterator[Finding]:
    proto = mount.options.get("proto", stats.transport if stats else "")
    connections = max(mount.number("nconnect", 1), stats.connections if stats else 1)
    if proto.startswith("udp"):
        yield Finding(
            severity=WARNING,
            what=f"{mount.point} is mounted over UDP",
            why="lost fragments are noticed by a time-out, and can go unnoticed in the data at high rates (nfs(5))",
            cure=_remount(mount, "proto=tcp,nconnect=16"),
        )
    elif proto.startswith("tcp") and connections == 1:
        yield Finding(
            severity=WARNING,
            what=f"{mount.point} uses one TCP connection",
            why="one connection is one core's work and one path of the network, commonly 1 to 3 GB/s at most",
            cure=f"{_remount(mount, 'nconnect=16')}. Where the network has RDMA: proto=rdma,port=20049",
        )
    if mount.options.get("vers", "").startswith(("2", "3", "4.0")) and not proto.startswith("udp"):
        yield Finding(
            severity=NOTE,
            what=f"{mount.point} speaks NFS {mount.options['vers']}",
            why="without sessions (4.1 and later) a broken connection may repeat requests; locks need a second service",
            cure=_remount(mount, "vers=4.2"),
        )


def _judge_local(mount: Mount) -> Iterator[Finding]:
    if mount.kind == "overlay":
        yield Finding(
            severity=WARNING,
            what="the local tier lies in the container's own layer",
            why="what is brought there goes when the container does, and counts against its ephemeral storage",
            cure="Mount a volume and name it: FASTLOAD_LOCAL=/models, volumeMounts: [{name: m, mountPath: /models}]",
        )
    elif mount.kind in {"tmpfs", "ramfs"}:
        yield Finding(
            severity=WARNING,
            what="the local tier lies in memory",
            why="the weights are held twice, and both count against the pod's memory limit",
            cure="Name a disk: FASTLOAD_LOCAL=/models on a hostPath, local or block volume",
        )
    elif mount.kind in {"nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "9p"}:
        yield Finding(
            severity=NOTE,
            what=f"the local tier lies on {mount.kind}",
            why="fastload takes it for a disk of this machine alone: it evicts there, and copies nothing nearer",
            cure=f"Name it as what it is: FASTLOAD_SHARED={mount.point}, and FASTLOAD_LOCAL on a disk of the node",
        )


def _fuse(mount: Mount) -> Finding:
    return Finding(
        severity=NOTE,
        what=f"{mount.point} is {mount.kind}",
        why="each read goes through a process of its own; an object store behind it is slow where few are in flight",
        cure="Copy to a disk first: fastload warm NAME, then tiers=local",
    )


def _remount(mount: Mount, options: str) -> str:
    """The two ways: by hand, and by the PersistentVolume that mounts it."""
    words = ", ".join(options.split(","))
    return (
        f"umount {mount.point}; mount -t nfs -o {options} {mount.source} {mount.point}. In Kubernetes, in the "
        f"PersistentVolume: mountOptions: [{words}]"
    )
