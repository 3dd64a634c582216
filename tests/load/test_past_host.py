"""Which loads may go past the host: by setting, by load, by machine, by file; and what asking by name makes of a no."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

import fastload
from fake_kvikio import FakeKvikio
from fastload._fetch.evidence.evidence import NOTHING
from fastload._format.checkpoint import Checkpoint, Shard
from fastload._load.prove.proving import prove
from fastload._load.read import past_host
from fastload._load.read.past_host import Journey, open_device_reads
from fastload._plan.layout import LayoutRules, lay_out
from fastload._plan.plan import build_plan
from fastload._read.choose import choose_reader
from fastload._read.gds_switch import GdsSwitch
from fastload._read.head import read_header
from fastload._read.paced import paced
from fastload.errors import MemoryBudgetError, UnsupportedError, UsageError
from fastload.options import decide_settings
from models import MIB, save_large

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = torch.device("cuda", 0)


class Properties(NamedTuple):
    """As torch's of a device."""

    name: str = "H100"
    uuid: str = "GPU-1"


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine and files of which nothing speaks against it."""
    for name in ("kvikio", "kvikio.defaults"):
        monkeypatch.setitem(sys.modules, name, FakeKvikio())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    monkeypatch.setattr(past_host, "check_machine", lambda _: "")
    monkeypatch.setattr(past_host, "check_file", lambda _, **__: "")


def nothing() -> None:
    """There is room."""


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    save_large(tmp_path, 4, MIB)
    path = tmp_path / "model.safetensors"
    checkpoint = Checkpoint((Shard(path.name, str(path), *read_header(str(path))),), None)
    rules = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20)

    def lay(infos: Any, _: int, first_arena: int) -> Any:
        return lay_out(infos, rules, first_arena=first_arena)

    plan = build_plan(checkpoint, lambda _: True, lay, extent_bytes=4 * MIB)
    choices = {0: choose_reader(checkpoint.shards[0], "buffered")}
    proving = prove(
        checkpoint,
        plan,
        choices.keys(),
        NOTHING,
        None,  # type: ignore[arg-type] # nobody is told of no proof
        here=lambda: plan.extents,
    )
    return Journey(checkpoint, plan, choices, proving, None, nothing)


def why_not(journey: Journey, **settings: str) -> str:
    """Why nothing goes past the host; empty where it is up to the switch."""
    reads = open_device_reads(journey, DEVICE, decide_settings(None, settings, {"HOME": "/nowhere"}))
    assert reads is not None
    return "" if reads._served else reads.describe()[1]


def test_a_machine_that_can_may_try(journey: Journey) -> None:
    assert why_not(journey) == ""
    assert why_not(journey, gds="on") == ""


def test_host_memory_has_no_way_past_the_host(journey: Journey) -> None:
    assert open_device_reads(journey, torch.device("cpu"), decide_settings(None, {}, {})) is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"gds": "off"}, "gds is off"),
        ({"reader": "direct"}, "reader is direct"),
        ({"reader": "buffered"}, "reader is b"),
    ],
)
def test_settings_that_say_no(journey: Journey, settings: dict[str, str], why: str) -> None:
    assert why_not(journey, **settings).startswith(why)


def test_several_devices_are_a_no_unless_it_is_on(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert "CUDA_VISIBLE_DEVICES" in why_not(journey)
    assert why_not(journey, gds="on") == ""


def test_no_kvikio(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_host, "find_spec", lambda _: None)
    assert why_not(journey) == why_not(journey, gds="on") == "kvikio is not installed"


def test_the_machine_and_the_file_have_their_say(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_host, "check_file", lambda _, **__: "ext4 lies on sda, which is no NVMe disk")
    assert "sda" in why_not(journey)
    monkeypatch.setattr(past_host, "check_machine", lambda _: "no nvidia-fs")
    assert why_not(journey, gds="on") == "no nvidia-fs"


def test_a_verdict_holds_for_one_mount(journey: Journey) -> None:
    shard = journey.checkpoint.shards[0]
    elsewhere = replace(shard, identity=shard.identity._replace(dev=shard.identity.dev + 1))
    choice = journey.choices[0]
    both = replace(journey, checkpoint=Checkpoint((shard, elsewhere), None), choices={0: choice, 1: choice})

    def served(**settings: str) -> frozenset[int]:
        reads = open_device_reads(both, DEVICE, decide_settings(None, settings, {"HOME": "/nowhere"}))
        assert reads is not None
        return reads._served

    assert served() == {0}
    assert served(gds="on") == {0, 1}


def test_digests_of_whole_files_are_the_cpus(journey: Journey) -> None:
    serial = replace(journey, proving=replace(journey.proving, on_host=frozenset({0})))
    assert "which the CPU takes" in why_not(serial)
    with pytest.raises(UnsupportedError, match="which the CPU takes"):
        why_not(serial, reader="gds")


def test_a_rate_is_kept_by_reads_of_the_host(journey: Journey) -> None:
    choices = {number: paced(choice, print) for number, choice in journey.choices.items()}
    held_back = replace(journey, choices=choices)
    assert "max_rate" in why_not(held_back)
    with pytest.raises(UnsupportedError, match="max_rate"):
        why_not(held_back, reader="gds")


def no_room() -> None:
    raise MemoryBudgetError(2, 1, "the device")


def test_a_small_device_has_no_room_for_a_second_ring(journey: Journey) -> None:
    small = replace(journey, check_room=no_room)
    assert "no room left" in why_not(small)
    with pytest.raises(MemoryBudgetError):
        why_not(small, reader="gds")


def test_a_copy_on_the_local_tier_needs_the_bytes(journey: Journey) -> None:
    reads = open_device_reads(journey, DEVICE, decide_settings(None, {}, {}))
    assert reads is not None
    reads.refuse("what is kept on the local tier passes through the host")
    reads.begin()
    assert reads.describe() == ("", "what is kept on the local tier passes through the host")


def test_by_name_a_no_is_an_error(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GdsSwitch, "turn_on", lambda *_: None)
    assert why_not(journey, reader="gds") == ""
    with pytest.raises(UsageError, match="gds is off"):
        why_not(journey, reader="gds", gds="off")
    with pytest.raises(UnsupportedError, match="CUDA devices only"):
        open_device_reads(journey, torch.device("cpu"), decide_settings(None, {"reader": "gds"}, {}))
    monkeypatch.setattr(past_host, "check_machine", lambda _: "/proc/modules does not exist")
    with pytest.raises(UnsupportedError, match="cannot serve this load: /proc/modules does not exist"):
        why_not(journey, reader="gds")


def test_by_name_on_the_cpu_is_an_error(tmp_path: Path) -> None:
    save_large(tmp_path, 2, MIB)
    with pytest.raises(UnsupportedError, match="CUDA devices only"):
        fastload.load(tmp_path, reader="gds")
    weights = fastload.load(tmp_path, options=fastload.Options(gds="on"))
    assert weights.report.reader in {"direct", "buffered"}
