"""How much memory there is, by the files of a pretended machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastload._budget import Headroom, check_budget, host_headroom
from fastload.errors import MemoryBudgetError

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
V1_UNLIMITED = 0x7FFFFFFFFFFFF000


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def machine(root: Path, *, available: int = 64 * GIB, cgroup: str = "") -> None:
    write(
        root,
        {
            "proc/meminfo": f"MemTotal:       99999999 kB\nMemFree:  1 kB\nMemAvailable:   {available >> 10} kB\n",
            "proc/self/cgroup": cgroup,
        },
    )


def v2(root: Path, folder: str, limit: int | str, used: int, *, inactive: int = 0, active: int = 0) -> None:
    stat = f"anon 7\nfile 99\nactive_file {active}\ninactive_file {inactive}\nshmem 5\n"
    write(
        root / "sys/fs/cgroup" / folder,
        {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat},
    )


def v1(root: Path, folder: str, limit: int, used: int, *, inactive: int = 0, active: int = 0) -> None:
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {inactive}\ntotal_active_file {active}\n"
    write(
        root / "sys/fs/cgroup/memory" / folder,
        {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat},
    )


def headroom(root: Path) -> Headroom:
    return host_headroom(root=str(root))


def test_this_machine_has_some_memory() -> None:
    found = host_headroom()
    assert 0 < found.available_bytes < 1 << 60
    assert found.limit


def test_without_cgroups_the_ram_counts(tmp_path: Path) -> None:
    machine(tmp_path)
    assert headroom(tmp_path) == Headroom("the machine's RAM", 64 * GIB)


def test_a_kernel_that_does_not_say_what_is_available_has_its_ram(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 5 kB\n"})
    assert headroom(tmp_path).available_bytes > 1 << 20


def test_v2_what_a_limit_leaves_with_page_cache_counted_as_free(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/pod/main\n")
    v2(tmp_path, "pod/main", 10 * GIB, 8 * GIB, inactive=2 * GIB, active=1 * GIB)
    found = headroom(tmp_path)
    assert found.available_bytes == 5 * GIB
    assert found.limit.endswith("/sys/fs/cgroup/pod/main")


def test_v2_a_limit_above_counts_as_well(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/pod/main\n")
    v2(tmp_path, "pod/main", "max", 1 * GIB)
    v2(tmp_path, "pod", 4 * GIB, 3 * GIB)
    assert headroom(tmp_path).available_bytes == 1 * GIB


def test_v2_in_a_container_of_its_own_namespace(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/\n")
    v2(tmp_path, ".", 3 * GIB, 1 * GIB)
    assert headroom(tmp_path).available_bytes == 2 * GIB


def test_a_path_of_the_host_that_is_not_visible_here_leaves_the_root_of_the_mount(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="4:memory:/kubepods/pod1/c2\n")
    v1(tmp_path, ".", 3 * GIB, 1 * GIB)
    assert headroom(tmp_path).available_bytes == 2 * GIB


def test_v1_what_a_limit_leaves_with_page_cache_counted_as_free(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="9:cpu,cpuacct:/x\n4:memory:/docker/c1\n0::/y\n")
    v1(tmp_path, "docker/c1", 10 * GIB, 8 * GIB, inactive=2 * GIB, active=1 * GIB)
    v1(tmp_path, ".", V1_UNLIMITED, 50 * GIB)
    found = headroom(tmp_path)
    assert found.available_bytes == 5 * GIB
    assert found.limit.endswith("/sys/fs/cgroup/memory/docker/c1")


@pytest.mark.parametrize("limit", [V1_UNLIMITED, (1 << 63) - 1])
def test_v1_no_limit_is_a_very_large_number(tmp_path: Path, limit: int) -> None:
    machine(tmp_path, cgroup="4:memory:/\n")
    v1(tmp_path, ".", limit, 50 * GIB)
    assert headroom(tmp_path).limit == "the machine's RAM"


def test_the_ram_counts_where_the_cgroup_allows_more(tmp_path: Path) -> None:
    machine(tmp_path, available=1 * GIB, cgroup="0::/\n")
    v2(tmp_path, ".", 100 * GIB, 1 * GIB)
    assert headroom(tmp_path) == Headroom("the machine's RAM", 1 * GIB)


def test_a_cgroup_that_says_no_numbers_limits_nothing(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/a:b/c\n")
    write(tmp_path / "sys/fs/cgroup/a:b/c", {"memory.max": "", "memory.current": "1\n"})
    assert headroom(tmp_path).limit == "the machine's RAM"


def test_a_cgroup_without_statistics_counts_no_cache(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/\n")
    write(tmp_path / "sys/fs/cgroup", {"memory.max": f"{3 * GIB}\n", "memory.current": f"{2 * GIB}\n"})
    assert headroom(tmp_path).available_bytes == 1 * GIB


def test_what_fits_exactly_fits() -> None:
    check_budget(100, Headroom("the machine's RAM", 100), "")


def test_what_does_not_fit_is_refused_with_its_facts() -> None:
    with pytest.raises(MemoryBudgetError) as caught:
        check_budget(101, Headroom("the machine's RAM", 100), "Load fewer tensors")
    error = caught.value
    assert (error.needed_bytes, error.available_bytes, error.limit) == (101, 100, "the machine's RAM")
    assert error.hint == "Load fewer tensors"
    assert str(error) == "needs 101 bytes, but the machine's RAM leaves 100. Load fewer tensors"


def test_a_limit_that_is_already_exceeded_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    machine(tmp_path, cgroup="0::/\n")
    v2(tmp_path, ".", 1 * GIB, 2 * GIB)
    with pytest.raises(MemoryBudgetError) as caught:
        check_budget(1, headroom(tmp_path), "")
    assert caught.value.available_bytes == 0
