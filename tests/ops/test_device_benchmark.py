"""The benchmark for a machine with a GPU, as far as one without can try it: a rehearsal, its limits, its table."""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

import device_steps
from device_models import Models
from device_process import LimitError
from device_report import draw, find_ceiling, render
from device_run import Run, SkipError, Step
from fastload.ops.bench.measure import Sample
from pretended_cuda import pretended_cuda

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "device.py"


def test_a_rehearsal_names_what_it_skips(tmp_path: Path) -> None:
    steps = [
        "wheels",
        "facts",
        "gpu tests",
        "pinned*",
        "digests*",
        "a model in tmpfs",
        "tmpfs: *auto, turn 1",
        "memory of load_into",
    ]
    flags = ["--device", "cpu", "--size", "8M", "--memory", str(tmp_path), "--disk", str(tmp_path), "--steps", *steps]
    command = [sys.executable, str(_SCRIPT), *flags, "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = json.loads((tmp_path / "out/device.json").read_text())
    told = {name: (step["status"], step.get("why")) for name, step in found["steps"].items()}
    has_triton = importlib.util.find_spec("triton") is not None  # a build of torch for CUDA brings it
    assert told == {
        "wheels": ("ok", None),
        "facts": ("ok", None),
        "gpu tests": ("skipped", "no GPU"),
        "pinned host to device": ("skipped", "no GPU"),
        "digests on the device, as loads take them": ("skipped", "no GPU"),
        "digests on the device, by Triton": ("skipped", "no GPU" if has_triton else "triton is not installed"),
        "a model in tmpfs": ("ok", None),
        "tmpfs: fastload-auto, turn 1": ("ok", None),
        "memory of load_into": ("ok", None),
    }
    samples = found["steps"]["tmpfs: fastload-auto, turn 1"]["samples"]
    assert [sample["evidence"] for sample in samples] == ["manifest (recorded)"] * 3
    table = (tmp_path / "out/device.md").read_text()
    assert "- gpu tests: skipped: no GPU" in table
    assert table in run.stdout
    assert "fastload-auto" in (tmp_path / "out/device.svg").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the models are gone


def test_without_a_gpu_nothing_is_made_for_it(tmp_path: Path) -> None:
    flags = ["--memory", str(tmp_path), "--disk", str(tmp_path), "--steps", "facts", "a model*", "tmpfs: fastload*"]
    command = [sys.executable, str(_SCRIPT), *flags, "--out", str(tmp_path / "out")]
    subprocess.run(command, capture_output=True, check=True, timeout=240)
    steps = json.loads((tmp_path / "out/device.json").read_text())["steps"]
    if torch.cuda.is_available():
        assert steps["facts"]["found"]["has_gpu"]
        return
    assert steps.pop("wheels")["status"] == steps.pop("facts")["status"] == "ok"
    assert {step["why"] for step in steps.values()} == {"no GPU"}
    assert "a model in tmpfs" in steps


def rehearse(folder: Path, *flags: str, **facts: Any) -> subprocess.Popen[str]:
    """The script, on the CPU, with little."""
    where = ["--memory", str(folder), "--disk", str(folder), "--out", str(folder / "out")]
    command = [sys.executable, str(_SCRIPT), "--device", "cpu", "--size", "8M", *where, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **facts)


def test_what_matters_most_is_measured_first(tmp_path: Path) -> None:
    """The tests, which may take a minute and a half, came first: a slow machine had no time left for any load."""
    with rehearse(tmp_path, "--budget", "0") as run:
        run.communicate(timeout=240)
    steps = list(json.loads((tmp_path / "out/device.json").read_text())["steps"])
    assert steps[:8] == [
        "wheels",
        "facts",
        "pinned host to device",
        "a model in tmpfs",
        "tmpfs: fastload-auto, turn 1",
        "tmpfs: instanttensor, turn 1",
        "tmpfs: fastload-auto-off, turn 1",
        "gpu tests",
    ]
    assert steps.index("tmpfs: fastload-auto, turn 2") < steps.index("a model on disk")


def test_what_all_steps_need_is_done_whichever_are_asked_for(tmp_path: Path) -> None:
    with rehearse(tmp_path, "--steps", "a model in tmpfs") as run:
        run.communicate(timeout=240)
    steps = json.loads((tmp_path / "out/device.json").read_text())["steps"]
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(
        ("wheels", "facts", "a model in tmpfs"), "ok"
    )


def test_wheels_cost_no_more_than_what_they_hold(tmp_path: Path) -> None:
    """One that is broken is named, and nothing of what others held comes to the results."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "blake3-9-cp312-cp312-linux_x86_64.whl").write_bytes(b"no archive")
    with ZipFile(tmp_path / "wheels" / "brought-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought.py", "")
        wheel.writestr("brought-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("brought-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
        wheel.writestr("brought-1.dist-info/RECORD", "")
    with rehearse(tmp_path, "--wheels", str(tmp_path / "wheels"), "--steps", "a model in tmpfs") as run:
        run.communicate(timeout=240)
    steps = json.loads((tmp_path / "out/device.json").read_text())["steps"]
    assert steps["wheels"]["found"] == {"unpacked": 1, "refused": ["blake3-9-cp312-cp312-linux_x86_64.whl"]}
    assert steps["a model in tmpfs"]["status"] == "ok"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"device.json", "device.md", "device.svg"}


def test_a_run_that_is_ended_has_its_table_and_leaves_no_model(tmp_path: Path) -> None:
    steps = ("a model in tmpfs", "tmpfs: fastload*")
    with rehearse(tmp_path, "--steps", *steps) as run:
        assert run.stdout is not None
        while "a model in tmpfs: ok" not in run.stdout.readline():
            assert run.poll() is None
        run.terminate()
        run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    assert "- a model in tmpfs: bytes" in (tmp_path / "out/device.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_that_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    def take_too_long(command: list[str], limit_s: float) -> Any:
        (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"half of it")
        raise LimitError(limit_s, "")

    models = Models({"disk": tmp_path}, {"disk": 1 << 20}, take_too_long)
    with pytest.raises(LimitError):
        models.make("disk", None, 1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SkipError):
        models.get("disk")


def step(name: str, run: Any, **facts: Any) -> Step:
    return Step(name, 5, 1, run, **{"needs_gpu": False, **facts})


def test_one_failure_costs_one_row_and_every_row_is_written_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "device.json", budget_s=100)
    seen: list[float] = []

    def fail(_: float) -> dict[str, Any]:
        raise ValueError("broken")

    def skip(_: float) -> dict[str, Any]:
        raise SkipError("not here")

    def note(limit_s: float) -> dict[str, Any]:
        seen.append(limit_s)
        assert json.loads((tmp_path / "device.json").read_text())["steps"].keys() == {"a", "b"}
        return {"found": {"x": 1}}

    for each in (step("a", fail), step("b", skip), step("c", note), step("d", note, needs=("no_such_package",))):
        run.take(each)
    told = {name: (s["status"], s.get("why")) for name, s in run.record.steps.items()}
    assert told == {
        "a": ("failed", "ValueError: broken"),
        "b": ("skipped", "not here"),
        "c": ("ok", None),
        "d": ("skipped", "no_such_package is not installed"),
    }
    assert seen == [5]


def test_what_the_budget_has_no_room_for_is_skipped_by_name(tmp_path: Path) -> None:
    run = Run(tmp_path / "device.json", budget_s=0.5)
    run.take(step("late", lambda _: {}))
    assert run.record.steps["late"]["status"] == "skipped"
    assert "it wants 1" in run.record.steps["late"]["why"]


def sample(gb_per_s: float, peak_device_bytes: int = 0) -> dict[str, Any]:
    seconds = 1 / gb_per_s
    facts = Sample("x", seconds, seconds, 0.0, 1.0, 10**9, 10**9, 0, 7, "pinned: why", "manifest", peak_device_bytes)
    return asdict(facts)


def test_the_table_has_the_first_load_the_others_and_the_targets() -> None:
    steps: dict[str, Any] = {
        "pinned host to device": {
            "status": "ok",
            "found": {"pinned": True, "gb_per_s": {"1 streams": {"median": 40.0}, "2 streams": {"median": 50.0}}},
        },
        "tmpfs: fastload-auto, turn 1": {
            "status": "ok",
            "samples": [sample(20), sample(48, 10**9 + (64 << 20)), sample(49)],
        },
        "tmpfs: fastload-auto, turn 2": {"status": "ok", "samples": [sample(10), sample(50)]},
        "tmpfs: instanttensor, turn 1": {"status": "ok", "samples": [sample(16), sample(47)]},
        "cold disk: read-direct, turn 1": {"status": "failed", "why": "it broke"},
    }
    assert find_ceiling(steps) == 50.0
    text = render({"gpu": "one"}, steps)
    row = next(line for line in text.splitlines() if "tmpfs: fastload-auto" in line)
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["15.00", "49.00", "48.00-50.00", "0.98"]
    assert "- cold disk: read-direct, turn 1: failed: it broke" in text
    assert "- met tmpfs: steady / pinned H2D >= 0.92: 0.980" in text
    assert "- met tmpfs: steady / min(1.05 x InstantTensor, 0.95 x H2D) >= 1: 1.032" in text
    assert "- MISSED tmpfs: first load / fastest peer's > 1: 0.938" in text
    assert draw(steps).count("<rect") == 3
    assert "OTHER BYTES" not in text


def test_who_loads_other_bytes_is_named() -> None:
    other = sample(30) | {"touched_sum": 8}
    steps: dict[str, Any] = {
        "tmpfs: fastload-auto, turn 1": {"status": "ok", "samples": [sample(20), sample(48)]},
        "tmpfs: runai, turn 1": {"status": "ok", "samples": [sample(20), other]},
        "cold disk: fastload-auto, turn 1": {"status": "ok", "samples": [other]},
        "page cache: fastload-auto, turn 1": {"status": "ok", "samples": [other]},
        "cold disk: read-direct, turn 1": {"status": "ok", "samples": [sample(2)]},
    }
    lines = render({}, steps).splitlines()
    assert [line for line in lines if "OTHER BYTES" in line] == ["- OTHER BYTES tmpfs: runai"]


def test_a_stream_is_said_to_take_less_than_the_model() -> None:
    """It keeps nothing of it."""
    gib = 1 << 30
    found = {"model_bytes": 40 * gib, "staging_bytes": 0}
    steps: dict[str, Any] = {
        "memory of load": {"status": "ok", "found": found | {"device_peak_bytes": 40 * gib + (300 << 20)}},
        "memory of stream": {"status": "ok", "found": found | {"device_peak_bytes": gib}},
    }
    text = render({}, steps)
    assert "- MISSED memory of load: 300 MiB above the model's, at most 256 above it" in text
    assert "- met memory of stream: 1,024 MiB in all, at most 256 above it" in text


def test_what_was_not_pinned_is_no_ceiling() -> None:
    found = {"pinned": False, "gb_per_s": {"1 streams": {"median": 9.0}}}
    steps: dict[str, Any] = {
        "pinned host to device": {"status": "ok", "found": found},
        "tmpfs: fastload-auto, turn 1": {"status": "ok", "samples": [sample(20), sample(48)]},
    }
    assert find_ceiling(steps) is None
    assert "pinned H2D >= 0.92" not in render({}, steps)


def test_the_ceiling_is_measured_by_copies_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_steps, "_COPIES", 32)
    monkeypatch.setattr(device_steps, "_ROUNDS", 2)
    monkeypatch.setattr(device_steps, "_SLOT_BYTES", 1 << 16)
    with pretended_cuda(monkeypatch, random.Random(0)) as machine:  # noqa: S311 - a schedule
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: machine.run_all())
        found = device_steps.measure_ceiling("cuda:0")
        assert not any(stream.queue for stream in machine.streams)
    assert found["pinned"]
    assert found["gb_per_s"].keys() == {"1 streams", "2 streams", "8 streams"}
    assert all(rate["min"] > 0 for rate in found["gb_per_s"].values())
    assert machine.registered == {}
