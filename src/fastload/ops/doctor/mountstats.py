"""``/proc/self/mountstats``: what an NFS mount has done so far, and over what (nfsiostat(8) reads the same)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastload.ops.doctor.mountinfo import unescape

_DEVICE = re.compile(r"device \S+ mounted on (?P<point>\S+) with fstype (?P<kind>\S+)")
_READ = re.compile(r"READ:((?: \d+){8,})")
_XPRT = re.compile(r"xprt:\s+(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NfsStats:
    """One NFS mount since it was mounted."""

    point: str
    transport: str
    """``tcp``, ``rdma``, ``udp``; empty where the kernel does not say."""
    connections: int
    """To the server, which ``nconnect`` asked for and may not have got."""
    reads: int
    read_bytes: int
    read_ms: int
    """From sending a read to its answer, summed."""

    @property
    def ms_per_read(self) -> float | None:
        """None before the first read."""
        return self.read_ms / self.reads if self.reads else None


def parse_mountstats(text: str) -> dict[str, NfsStats]:
    """The NFS mounts, by mount point."""
    stats: dict[str, NfsStats] = {}
    for section in re.split(r"^(?=device )", text, flags=re.MULTILINE):
        match = _DEVICE.match(section)
        if match is not None and match["kind"] in {"nfs", "nfs4"}:
            point = unescape(match["point"])
            stats[point] = _parse_section(point, section)
    return stats


def _parse_section(point: str, section: str) -> NfsStats:
    transports = _XPRT.findall(section)
    read = _READ.search(section)
    # Operations, transmissions, time-outs, bytes sent and received, and the milliseconds queued and until the answer.
    counts = [int(count) for count in read[1].split()] if read else [0] * 8
    return NfsStats(
        point=point,
        transport=transports[0] if transports else "",
        connections=len(transports),
        reads=counts[0],
        read_bytes=counts[4],
        read_ms=counts[6],
    )
