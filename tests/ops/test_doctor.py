"""``fastload doctor``: as a process, and what it judges machines by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fastload._settings.cufile import CufileSettings
from fastload._settings.values import Share
from fastload.cli import main
from fastload.ops.doctor.gpu import Gpu, judge_gpu, look_at_gpu, parse_driver, parse_torch_cuda
from fastload.ops.doctor.installation import judge_owners
from fastload.ops.doctor.machine import judge_machine, look_at_machine, parse_chosen, parse_status
from fastload.ops.doctor.volume import judge_local, look_at
from forked import run_fastload
from hanging import dead_mount, silent_file
from hub_server import HubServer, Repo
from stopwatch import Stopwatch
from stored_models import COMMIT, model_files, write_cache, write_folder
from warming import environment

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/model"


def _doctor(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    where = {"FASTLOAD_LOCAL": str(tmp_path / "local"), "HF_HUB_CACHE": str(tmp_path / "local"), "HOME": str(tmp_path)}
    environ = environment(**(where | {"HF_HUB_OFFLINE": "1"} | more))
    return run_fastload(["doctor", *words], environ, timeout=60)


def _facts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    facts = json.loads(done.stdout)
    assert isinstance(facts, dict)
    return facts


def _what(facts: dict[str, Any]) -> str:
    return "\n".join(f"{finding['severity']}: {finding['what']}" for finding in facts["findings"])


def test_settings_come_with_their_origin(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('reader = "buffered"\nmin_free = "1Gi"')
    done = _doctor(tmp_path, "--json", "--max-rate", "1G", FASTLOAD_CONFIG=str(config), FASTLOAD_VERIFY="require")
    assert done.returncode == 0, done.stderr
    settings = {each["name"]: (each["value"], each["origin"]) for each in _facts(done)["settings"]}
    assert settings["reader"] == ("buffered", str(config))
    assert settings["min_free"] == (str(1 << 30), str(config))
    assert settings["max_rate"] == ("1000000000", "the call")
    assert settings["verify"] == ("require", "the environment")
    assert settings["tiers"] == ("local,shared,hub", "default")


def test_the_way_of_a_model_on_each_tier(tmp_path: Path) -> None:
    files = model_files()
    write_cache(tmp_path / "local", "org/near", COMMIT, files)
    write_folder(tmp_path / "mount" / "far", files)
    shared = {"FASTLOAD_SHARED": str(tmp_path / "mount")}
    way = _facts(_doctor(tmp_path, "org/near", "--json", **shared))["way"]
    assert (way["tier"], way["commit"], way["evidence"]) == ("local", COMMIT, "sha256")
    assert way["reader"] in {"buffered", "direct"}
    assert way["reader_reason"]
    way = _facts(_doctor(tmp_path, "far", "--json", **shared))["way"]
    assert (way["tier"], way["evidence"]) == (f"shared:{tmp_path / 'mount'}", "none")
    assert way["path"] == str(tmp_path / "mount" / "far")


def test_the_way_by_a_path_and_from_the_hub(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a-model", model_files())
    way = _facts(_doctor(tmp_path, str(folder), "--json"))["way"]
    assert (way["tier"], way["evidence"]) == ("path", "none")
    with HubServer({REPO: Repo(model_files())}) as hub:
        done = _doctor(tmp_path, REPO, "--json", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    assert done.returncode == 0, done.stdout
    way = _facts(done)["way"]
    assert (way["tier"], way["reader"], way["evidence"]) == ("hub", "hub", "listing")
    assert not (tmp_path / "local").exists()  # it only looks


def test_the_way_by_a_link_is_that_of_the_snapshot(tmp_path: Path) -> None:
    """As ``warm --link`` makes it."""
    snapshot = write_cache(tmp_path / "local", REPO, COMMIT, model_files())
    (tmp_path / "link").symlink_to(snapshot)
    way = _facts(_doctor(tmp_path, str(tmp_path / "link"), "--json"))["way"]
    assert (way["tier"], way["evidence"], way["path"]) == ("path", "sha256", str(snapshot))


def test_a_manifest_leaves_nothing_to_mend(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a-model", model_files())
    assert "has no block digests" in _what(_facts(_doctor(tmp_path, str(folder), "--json")))
    assert main(["verify", str(folder), "--record"]) == 0
    facts = _facts(_doctor(tmp_path, str(folder), "--json"))
    assert facts["way"]["evidence"] == "manifest (recorded)"
    assert "has no block digests" not in _what(facts)


def test_a_load_that_would_fail_is_fatal(tmp_path: Path) -> None:
    done = _doctor(tmp_path, "org/nowhere", "--json")
    facts = _facts(done)
    assert (done.returncode, facts["exit_code"], facts["error"]["type"]) == (22, 22, "UnfitError")
    assert "fatal: a load of org/nowhere would fail" in _what(facts)
    assert facts["way"] is None
    done = _doctor(tmp_path, "org/nowhere")
    assert done.returncode == 22
    assert "fatal: a load of org/nowhere would fail" in done.stdout
    assert "no model 'org/nowhere'" in done.stderr


def test_text_names_what_to_mend(tmp_path: Path) -> None:
    done = _doctor(tmp_path, FASTLOAD_SHARED=str(tmp_path / "unmounted"))
    assert done.returncode == 0, done.stderr
    assert f"warning: there is no folder {tmp_path / 'unmounted'}" in done.stdout
    assert "mend  mount it" in done.stdout
    for part in ("setting", "FASTLOAD_SHARED", "memory", "/dev/shm", "seccomp", "token", "driver"):
        assert part in done.stdout


def test_caches_that_point_apart(tmp_path: Path) -> None:
    where = {"HF_HUB_CACHE": str(tmp_path / "elsewhere"), "HF_HOME": str(tmp_path / "home")}
    found = _what(_facts(_doctor(tmp_path, "--json", **where)))
    assert f"FASTLOAD_LOCAL is {tmp_path / 'local'}" in found
    assert f"HF_HUB_CACHE is {tmp_path / 'elsewhere'}, and HF_HOME is {tmp_path / 'home'}" in found
    found = _what(_facts(_doctor(tmp_path, "--json")))
    assert "FASTLOAD_LOCAL is" not in found
    assert "HF_HUB_CACHE is" not in found


def test_a_token_is_seen_and_not_shown(tmp_path: Path) -> None:
    online = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_secret"}
    done = _doctor(tmp_path, "--json", **online)
    assert _facts(done)["installation"]["has_token"] is True
    assert "hf_secret" not in done.stdout + done.stderr
    done = _doctor(tmp_path, "--json", HF_HUB_OFFLINE="0")
    assert _facts(done)["installation"]["has_token"] is False
    assert "no token for the hub is seen" in _what(_facts(done))
    assert _facts(_doctor(tmp_path, "--json"))["installation"]["has_token"] is None


def test_a_dead_mount_costs_five_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a model is asked for, which only that mount could have; the rest is told all the same."""
    dead = tmp_path / "dead"
    write_folder(dead / "a-model", model_files())
    monkeypatch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("FASTLOAD_SHARED", str(dead))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    main(["doctor", "--json"])  # what takes time from here on is the mount, not an import
    capsys.readouterr()
    with dead_mount(monkeypatch, str(dead)):
        with Stopwatch() as watch:
            assert main(["doctor", "a-model", "--json"]) == 22
        assert watch.seconds < 5.0
    facts = json.loads(capsys.readouterr().out)
    assert f"warning: the tier shared:{dead} could not be looked at: no answer within 3 s" in _what(facts)
    assert "fatal: a load of a-model would fail" in _what(facts)
    assert [tier["label"] for tier in facts["tiers"]] == ["local", f"shared:{dead}"]
    assert facts["tiers"][1]["volume"] is None


def test_a_local_tier_that_cannot_be_written(tmp_path: Path) -> None:
    """A read-only mount, in a mount namespace of its own; what it shows of owners is the same for a foreign user."""
    local = tmp_path / "local"
    local.mkdir()
    mount = f"mount --bind {local} {local} && mount -o remount,bind,ro {local}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-m", "fastload"]
    environ = environment(FASTLOAD_LOCAL=str(local), HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [*command, "doctor"], capture_output=True, text=True, check=False, env=environ, timeout=60
    )  # fmt: skip
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"may not mount here: {done.stderr}")
    assert done.returncode == 0
    assert f"note: {local} is mounted read-only" in done.stdout
    assert "chown" not in done.stdout  # which would not help


def test_a_local_tier_of_somebody_else(tmp_path: Path) -> None:
    other = replace(look_at(str(tmp_path)), is_writable=False, owner="0:0 0755")
    (finding,) = judge_local(other, Share(fraction=0.0))
    uid, gid = os.geteuid(), os.getegid()
    assert finding.what == f"{tmp_path} cannot be written by uid {uid}, gid {gid} (it belongs to 0:0 0755)"
    assert f"fsGroup: {gid}" in finding.cure


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_TOKEN_PATH"])
def test_a_token_on_a_dead_mount_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv(variable, str(home if variable == "HF_HOME" else home / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
    with silent_file(home / "token"):
        with Stopwatch() as watch:
            assert main(["doctor", "--json"]) == 0
        assert watch.seconds < 5.0
    found = _what(json.loads(capsys.readouterr().out))
    assert "where tokens of the hub are kept (HF_HOME, HF_TOKEN_PATH) did not answer within 1 s" in found


def test_a_local_tier_that_is_full() -> None:
    disk = look_at("/")
    full = replace(disk, free_bytes=10, total_bytes=1000, free_inodes=3, is_writable=True)
    found = [finding.what for finding in judge_local(full, Share(fraction=0.05))]
    assert found == ["10 bytes are free at /, and min_free keeps 50", "3 inodes are free at /"]
    assert list(judge_local(replace(full, free_bytes=50, free_inodes=None), Share(fraction=0.05))) == []


def test_what_a_volume_is_like(tmp_path: Path) -> None:
    there = look_at(str(tmp_path))
    space = os.statvfs(tmp_path)
    assert there.exists and there.is_writable
    assert there.total_bytes == space.f_blocks * space.f_frsize
    missing = look_at(str(tmp_path / "a" / "b"))
    assert not missing.exists and missing.is_writable and missing.real_path == str(tmp_path)


def test_limits_of_a_machine(tmp_path: Path) -> None:
    """A container's, from files as its kernel writes them."""
    write_folder(
        tmp_path,
        {
            "proc/self/status": b"Name:\tpython\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
            "proc/meminfo": b"MemTotal: 1000 kB\nMemAvailable: 800 kB\n",
            "proc/self/cgroup": b"0::/\n",
            "sys/fs/cgroup/cpu.max": b"50000 100000\n",
            "sys/fs/cgroup/memory.max": b"409600\n",
            "sys/fs/cgroup/memory.current": b"102400\n",
            "sys/kernel/mm/transparent_hugepage/enabled": b"always madvise [never]\n",
            "run/udev/data/x": b"",
        },
    )
    machine = look_at_machine(root=str(tmp_path))
    assert (machine.seccomp, machine.no_new_privileges, machine.shm_bytes) == ("a filter", True, None)
    assert (machine.available_bytes, machine.has_udev) == (307200, True)
    assert machine.memory_limit.startswith("the memory limit of cgroup")
    huge, held = judge_machine(machine)
    assert huge.what == "transparent huge pages are off"
    assert held.what == f"of {machine.cpus} CPUs, the CPU quota of cgroup {tmp_path}/sys/fs/cgroup gives 0.5"
    small = replace(machine, cpu_quota=None, huge_pages="madvise", shm_bytes=64 << 20, open_files=256)
    assert [f.what for f in judge_machine(small)] == ["this process may have 256 files open", "/dev/shm has 64 MiB"]
    assert parse_status("A:\t1\nB:\tx y\n") == {"A": "1", "B": "x y"}
    assert (parse_chosen("always [madvise] never"), parse_chosen("")) == ("madvise", "")


GPU = Gpu(
    devices=1,
    driver="580.65",
    torch="2.13.0",
    torch_cuda="13.0",
    kvikio=None,
    has_cufile=False,
    has_nvidia_fs=False,
    gds_obstacle="neither nvidia-fs is loaded",
)


@pytest.mark.parametrize(
    ("gpu", "has_udev", "expected"),
    [
        (GPU, False, []),
        (replace(GPU, torch_cuda=None), True, ["there is a GPU, and torch 2.13.0 is built for the CPU"]),
        (replace(GPU, devices=0), True, ["the driver 580.65 is loaded, and this container has no GPU"]),
        (
            replace(GPU, kvikio="26.10"),
            True,
            ["kvikio is installed, but neither nvidia-fs is loaded"],
        ),
        (replace(GPU, kvikio="26.10", has_nvidia_fs=True, gds_obstacle=""), False, ["/run/udev is not there"]),
        (replace(GPU, devices=0, driver=None, torch_cuda=None), False, []),
    ],
)
def test_what_keeps_weights_from_a_gpu(gpu: Gpu, has_udev: int, expected: list[str]) -> None:
    assert [finding.what for finding in judge_gpu(gpu, has_udev=bool(has_udev))] == expected


def test_versions_of_driver_and_torch(tmp_path: Path) -> None:
    closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  x"
    opened = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.173.02  Release Build  (root@host)  Tue"
    assert (parse_driver(closed), parse_driver(opened), parse_driver("")) == ("535.129.03", "580.173.02", None)
    assert parse_torch_cuda("debug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None") == "13.0"
    assert parse_torch_cuda("cuda: Optional[str] = None\n") is None
    write_folder(tmp_path, {"dev/nvidia0": b"", "dev/nvidiactl": b"", "proc/driver/nvidia/version": opened.encode()})
    seen = look_at_gpu(CufileSettings(), root=str(tmp_path))
    assert (seen.devices, seen.driver, seen.has_nvidia_fs) == (1, "580.173.02", False)
    assert seen.gds_obstacle.startswith("/proc/modules does not exist")


def test_a_foreign_distribution_that_owns_the_name() -> None:
    assert list(judge_owners(["fastload-llm"])) == []
    assert list(judge_owners(["fastload_llm"])) == []
    assert list(judge_owners([])) == []
    (finding,) = judge_owners(["fastload", "fastload-llm"])
    assert finding.severity == "fatal"
    assert "pip uninstall -y fastload &&" in finding.cure


def test_the_cure_of_a_foreign_distribution_removes_nothing_before_there_is_something_to_install(
    tmp_path: Path,
) -> None:
    """Whoever pastes it as it stands, on a machine that has no wheel, keeps what is there."""
    (finding,) = judge_owners(["fastload", "fastload-llm"])
    pip = 'pip() { echo "pip $*"; }'

    def paste(cure: str) -> list[str]:
        done = subprocess.run(["sh", "-c", f"{pip}\n{cure}"], capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    assert paste(finding.cure) == []
    wheel = tmp_path / "fastload_llm.whl"
    wheel.touch()
    assert paste(finding.cure.replace("/path/of/a/wheel/or/clone", str(wheel))) == [
        "pip uninstall -y fastload",
        f"pip install --force-reinstall --no-deps {wheel}",
    ]
