"""What the doctor reads out of /proc, and what it makes of each kind of mount. Whose texts: fixtures/README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload.ops.doctor.mount_judge import judge_mount
from fastload.ops.doctor.mountinfo import Mount, find_mount, parse_mountinfo
from fastload.ops.doctor.mountstats import parse_mountstats

FIXTURES = Path(__file__).parent / "fixtures"
MOUNTS = parse_mountinfo((FIXTURES / "made-up-mountinfo.txt").read_text())
FOUND = parse_mountinfo((FIXTURES / "mountinfo.txt").read_text())


def _mount(path: str) -> Mount:
    found = find_mount(MOUNTS, path)
    assert found is not None
    return found


def _findings(path: str, *, is_local: bool = False) -> list[str]:
    mount = _mount(path)
    return [f"{f.severity}: {f.what}" for f in judge_mount(mount, None, is_local=is_local)]


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/", "/", "overlay"),
        ("/models", "/", "overlay"),
        ("/cache/hub", "/cache", "xfs"),
        ("/cachexyz", "/", "overlay"),
        ("/mnt/fast/models--a--b", "/mnt/fast", "nfs4"),
        ("/mnt/bucket one/x", "/mnt/bucket one", "fuse.s3fs"),
        ("/mnt/over/x", "/mnt/over", "tmpfs"),
    ],
)
def test_the_mount_of_a_path(path: str, point: str, kind: str) -> None:
    mount = _mount(path)
    assert (mount.point, mount.kind) == (point, kind)


def test_options_of_the_mount_and_of_the_file_system() -> None:
    slow = _mount("/mnt/slow")
    assert slow.source == "192.0.2.12:/export"
    assert "ro" in slow.options  # the mount's own, though the file system is rw
    assert slow.number("rsize", 0) == 65536
    assert slow.number("nconnect", 1) == 1
    assert slow.options["vers"] == "3"


def test_the_mounts_of_this_machine_are_understood() -> None:
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    assert len(mounts) == len(Path("/proc/self/mountinfo").read_text().splitlines())
    found = find_mount(mounts, "/proc/self")
    assert found is not None
    assert found.kind == "proc"


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\r"])
def test_what_ends_a_line_elsewhere_ends_no_line_of_the_kernels(end: str) -> None:
    """It escapes the newline alone, in the name of a folder that somebody mounted something on."""
    (mount,) = parse_mountinfo(f"36 25 0:32 / /mnt/a{end}b rw - nfs4 server:/x rw\n")
    assert mount.point == f"/mnt/a{end}b"


def test_the_mounts_of_a_host_that_others_have_shown() -> None:
    assert len(FOUND) == len((FIXTURES / "mountinfo.txt").read_text().splitlines())
    home, red = find_mount(FOUND, "/home/akutz/2/x"), find_mount(FOUND, "/home/akutz/red/models--a--b")
    assert home is not None and (home.point, home.kind, home.source) == ("/home/akutz/2", "xfs", "/dev/mapper/cl-home")
    assert red is not None and (red.kind, red.options["vers"], red.number("rsize", 0)) == ("nfs4", "4.1", 524288)
    said = [(mount.point, finding.what) for mount in FOUND for finding in judge_mount(mount, None, is_local=False)]
    old = "/var/lib/rexray/volumes/vol01"
    assert said == [
        ("/home/akutz/red", "/home/akutz/red uses one TCP connection"),
        ("/var/lib/rexray/volumes/s3fsvol01", "/var/lib/rexray/volumes/s3fsvol01 is fuse.s3fs"),
        (old, f"{old} was negotiated to rsize=131072 (up to 1048576 is possible)"),
        (old, f"{old} uses one TCP connection"),
        (old, f"{old} speaks NFS 3"),
    ]


@pytest.mark.parametrize(
    ("name", "transport", "connections", "reads", "ms_per_read"),
    [
        ("nfs3-rdma", "rdma", 16, 2654501510, 11.8),
        ("nfs41", "tcp", 1, 34096, 13.6),
        ("nfs40", "tcp", 1, 1298, 61.2),
    ],
)
def test_statistics_of_nfs_mounts(name: str, transport: str, connections: int, reads: int, ms_per_read: float) -> None:
    """What answers to READ took on the wire is a little more than what the kernel counts as read from the server."""
    text = (FIXTURES / f"mountstats-{name}.txt").read_text()
    (stats,) = parse_mountstats(text).values()
    assert (stats.transport, stats.connections, stats.reads) == (transport, connections, reads)
    assert stats.ms_per_read == pytest.approx(ms_per_read, abs=0.1)
    from_server = int(text.partition("bytes:")[2].split()[4])
    assert from_server < stats.read_bytes < 1.01 * from_server
    asked = re.search(r"nconnect=(\d+)", text)
    assert connections == (int(asked[1]) if asked else 1)


def test_a_mount_before_its_first_read() -> None:
    head, _, _ = (FIXTURES / "mountstats-nfs41.txt").read_text().partition("\tper-op statistics")
    (stats,) = parse_mountstats(head).values()
    assert (stats.transport, stats.reads, stats.ms_per_read) == ("tcp", 0, None)


def test_connections_that_the_statistics_show_count() -> None:
    """Where the options name none."""
    mount = find_mount(FOUND, "/home/akutz/red")
    (stats,) = parse_mountstats((FIXTURES / "mountstats-nfs3-rdma.txt").read_text()).values()
    assert mount is not None
    assert list(judge_mount(mount, stats, is_local=False)) == []


def test_what_is_wrong_with_a_mount() -> None:
    assert _findings("/mnt/fast") == []
    assert _findings("/mnt/many") == []
    assert _findings("/mnt/lustre") == []
    assert _findings("/mnt/slow") == [
        "warning: /mnt/slow was negotiated to rsize=65536 (up to 1048576 is possible)",
        "warning: /mnt/slow uses one TCP connection",
        "note: /mnt/slow speaks NFS 3",
        "warning: /mnt/slow is mounted soft",
        "note: locks on /mnt/slow are this machine's own (local_lock=all)",
    ]
    assert _findings("/mnt/old") == [
        "warning: /mnt/old was negotiated to rsize=32768 (up to 1048576 is possible)",
        "warning: /mnt/old is mounted over UDP",
    ]
    assert _findings("/mnt/bucket one") == ["note: /mnt/bucket one is fuse.s3fs"]


def test_what_is_wrong_with_the_local_tier() -> None:
    assert _findings("/models", is_local=True) == ["warning: the local tier lies in the container's own layer"]
    assert _findings("/mnt/over", is_local=True) == ["warning: the local tier lies in memory"]
    assert _findings("/mnt/fast", is_local=True) == ["note: the local tier lies on nfs4"]
    assert _findings("/cache", is_local=True) == ["note: quotas are on at /cache"]


def test_every_finding_has_a_cure_by_hand_and_in_kubernetes() -> None:
    for finding in judge_mount(_mount("/mnt/slow"), None, is_local=False):
        assert finding.why
        assert "mount -t nfs -o" in finding.cure
        assert "mountOptions: [" in finding.cure


@given(st.text(max_size=300))
def test_no_text_confuses_the_parsers(text: str) -> None:
    for mount in parse_mountinfo(text):
        assert isinstance(mount, Mount)
    find_mount(parse_mountinfo(text), "/a")
    parse_mountstats(text)
    parse_mountstats("device a mounted on /b with fstype nfs4 statvers=1.1\n" + text)
