"""Where the other ranks can reach this one, by where their store is."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, HashStore, PrefixStore, Store

from fastload._group.address import ANYWHERE, find_own_address
from fastload._group.process_group import find_member

if TYPE_CHECKING:
    from pathlib import Path


def host_of(store: Store) -> str | None:
    make: Any = dist.ProcessGroup  # its stubs do not know this form
    return find_member(make(PrefixStore("jobs/", store), 0, 1)).store_host


def is_routed() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex((ANYWHERE, 9)) == 0


def test_a_store_in_memory_is_this_machines() -> None:
    assert host_of(HashStore()) is None
    assert find_own_address(None) == "127.0.0.1"


def test_a_file_may_be_on_a_mount_that_other_machines_have(tmp_path: Path) -> None:
    host = host_of(FileStore(str(tmp_path / "store"), 1))
    assert host == ANYWHERE
    address = find_own_address(host)
    with socket.create_server((address, 0)) as server:
        assert server.getsockname()[0] == address
    assert ipaddress.ip_address(address).is_loopback != is_routed()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_store_that_is_served_here_alone_is_this_machines(host: str) -> None:
    assert find_own_address(host) == "127.0.0.1"
