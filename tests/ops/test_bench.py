"""The benchmark: it measures what it says, leaves nothing behind, and holds back where it is asked to."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch

import fastload
from fastload._read import kernel
from fastload.cli import main
from fastload.ops.bench import page_cache
from fastload.ops.bench.bench import CONTESTANTS, BenchRequest, run_bench
from fastload.ops.bench.bounds import get_reading_ready
from fastload.ops.bench.chart import draw_chart
from fastload.ops.bench.checkpoint import list_llama, list_tiny, write_checkpoint
from fastload.ops.bench.contestants import FASTLOAD, UNPROVEN, find_obstacle, get_ready
from fastload.ops.bench.files import Files, Trial, list_files
from fastload.ops.bench.measure import Job, Sample, sum_on_device, touch
from fastload.ops.bench.page_cache import PageCacheError, evict, fill, measure_residency
from fastload.ops.bench.tables import Table
from fastload.ops.bench.turns import Habits, Runner
from fastload.options import decide_settings

MIB = 1 << 20
LOADERS = [
    name
    for name in (*FASTLOAD, *UNPROVEN, "safetensors", "safetensors-pread", "memcpy")
    if find_obstacle(name, "cpu") is None
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("llama")
    write_checkpoint(str(folder), list_llama(24 * MIB), shards=3)
    return list_files(str(folder))


def sample(contestant: str, seconds: float, nbytes: int = 10**9) -> Sample:
    return Sample(
        contestant,
        seconds=seconds,
        load_s=seconds,
        touch_s=0.0,
        cpu_s=1.0,
        nbytes=nbytes,
        peak_rss_bytes=nbytes,
        start_rss_bytes=0,
        touched_sum=7,
        note="",
        evidence="",
    )


@pytest.mark.parametrize("contestant", LOADERS)
def test_all_loaders_here_give_the_same_bytes(llama: Files, contestant: str) -> None:
    tensors = get_ready(contestant, Trial(llama))(llama)
    expected = get_ready("safetensors", Trial(llama))(llama)
    if contestant == "memcpy":  # whole files, headers too
        assert sum(tensor.nbytes for tensor in tensors.values()) == llama.nbytes
    else:
        assert tensors.keys() == expected.keys()
        assert touch(tensors) == touch(expected)


@pytest.mark.parametrize("contestant", ["fastload-auto", "safetensors"])
def test_a_part_of_a_folder_is_the_tensors_of_its_files(llama: Files, contestant: str) -> None:
    part = llama.capped(os.path.getsize(llama.paths[0]) + 1)
    assert part.is_part
    assert part.paths == llama.paths[:1]
    tensors = get_ready(contestant, Trial(part))(part)
    assert tensors.keys() == fastload.inspect(part.paths[0]).tensors.keys()


def test_a_cap_leaves_one_file_at_least(llama: Files) -> None:
    assert llama.capped(1).paths == llama.paths[:1]
    assert llama.capped(llama.nbytes) == llama


@pytest.mark.parametrize("variant", ["buffered", "buffered-1", "direct", "direct-1"])
def test_readings_pass_over_every_byte(llama: Files, variant: str) -> None:
    passed = get_ready(f"read-{variant}", Trial(llama))(llama)
    assert passed.nbytes == llama.nbytes  # type: ignore[attr-defined] # no mapping of tensors, but of none


def test_a_reading_is_held_to_a_rate(llama: Files) -> None:
    begin = time.perf_counter()
    get_reading_ready("buffered", 40 * MIB)(llama)
    assert time.perf_counter() - begin > 0.4  # 24 MiB, of which a tenth of a second's may come at once


def test_who_cannot_take_part_is_told_why() -> None:
    assert find_obstacle("fastload-auto", "cpu") is None
    assert find_obstacle("safetensors", "cpu") is None
    assert find_obstacle("fastload-gds", "cpu") == "it serves CUDA devices only"
    assert find_obstacle("instanttensor", "cpu") == "it serves CUDA devices only"
    assert find_obstacle("fastload-mmap", "cuda:0") == "it serves host memory only"
    is_old = [int(part) for part in version("safetensors").split(".")[:2]] < [0, 9]
    said = "safetensors has no prefetch before 0.9" if is_old else None
    assert find_obstacle("safetensors-prefetch", "cuda:0") == said
    assert find_obstacle("fastsafetensors", "cpu") == "fastsafetensors is not installed"
    assert find_obstacle("fastload-gds", "cuda:0") == "kvikio is not installed"


def test_files_are_brought_into_the_page_cache_and_out_of_it(llama: Files) -> None:
    fill(llama.paths)
    assert measure_residency(llama.paths) == 1.0
    try:
        evict(llama.paths, may_drop_all=False)
    except PageCacheError as exc:
        pytest.skip(f"not on this file system: {exc}")
    assert measure_residency(llama.paths) < 0.01


def test_what_is_touched_on_a_device_adds_up_to_the_same() -> None:
    sizes = (0, 1, 2, 4095, 4096, 4097, 3 * 4096 + 1)
    tensors = {str(size): torch.arange(size, dtype=torch.int32).to(torch.uint8) for size in sizes}
    assert sum_on_device(tensors, "cpu") == touch(tensors)


def test_a_job_survives_the_command_line(llama: Files) -> None:
    job = Job("fastload-auto", Trial(llama, "cuda:1", 7, {"staging_bytes": "32Mi"}), None)
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize("discarded", [0, 1, 2])
def test_the_first_rounds_are_thrown_away(
    tmp_path: Path, llama: Files, caplog: pytest.LogCaptureFixture, discarded: int
) -> None:
    runner = Runner(str(tmp_path), Habits(rounds=2, discarded=discarded))
    with caplog.at_level("INFO", logger="fastload"):
        table = runner.fill_table(Table("t", "cached"), {"read-buffered": Trial(llama)})
    assert table.errors == {}
    assert len(table.samples["read-buffered"]) == len(table.others_cpus) == 2
    assert len(caplog.records) == 2 + discarded


def test_a_volume_is_measured_with_a_model_that_is_gone_afterwards(tmp_path: Path) -> None:
    wish = BenchRequest(model=str(tmp_path), size_bytes=8 * MIB, rounds=1, states=("cached",), only=("fastload-auto",))
    found = run_bench(wish, decide_settings(None, {}))
    assert list(tmp_path.iterdir()) == []
    (table,) = found.to_dict()["tables"]
    assert table["errors"] == {}
    row = table["rows"]["fastload-auto"]
    assert row["bytes_per_s"] == pytest.approx(row["samples"][0]["nbytes"] / row["seconds"])
    assert row["samples"][0]["evidence"] == "manifest (recorded)"
    assert found.skipped == {}


def test_without_a_model_it_is_the_local_tier_that_is_measured(tmp_path: Path) -> None:
    local, manifests = tmp_path / "local", tmp_path / "manifests"
    local.mkdir()
    manifests.mkdir()
    settings = decide_settings(fastload.Options(local=str(local), manifests=str(manifests)), {})
    wish = BenchRequest(model=None, size_bytes=4 * MIB, rounds=1, states=("cached",), only=("read-buffered",))
    found = run_bench(wish, settings)
    assert [path.name for path in local.iterdir()] == [".locks"]  # where the hub's tools expect what is not theirs
    assert found.folder.startswith(str(local / ".locks"))
    assert not [path for path in (local / ".locks").rglob("*") if path.is_file()]
    assert list(manifests.iterdir()) == []


def test_a_state_that_no_row_is_about_has_no_table(tmp_path: Path) -> None:
    wish = BenchRequest(model=str(tmp_path), size_bytes=4 * MIB, rounds=1, only=("read-direct",))
    found = run_bench(wish, decide_settings(None, {}))
    assert "cached" not in [table.state for table in found.tables]
    assert found.skipped["cached"] == "none of the rows is about it"


def test_a_share_in_use_is_read_at_the_rate_that_was_set_and_by_nobody_else(tmp_path: Path) -> None:
    wish = BenchRequest(
        model=str(tmp_path), size_bytes=8 * MIB, rounds=1, states=("cached",), only=("read-buffered", "runai")
    )
    found = run_bench(wish, decide_settings(None, {"max_rate": "20Mi"}))
    (table,) = found.to_dict()["tables"]
    assert table["rows"]["read-buffered"]["bytes_per_s"] < 30 * MIB
    assert found.skipped == {"runai": "it cannot be held to max_rate"}
    assert found.max_rate == 20 * MIB


def test_where_nothing_is_nothing_is_measured(tmp_path: Path) -> None:
    settings = decide_settings(None, {})
    with pytest.raises(fastload.ModelNotFoundError):
        run_bench(BenchRequest(model=str(tmp_path / "missing"), size_bytes=MIB), settings)
    with pytest.raises(fastload.NoSpaceError, match="--size"):
        run_bench(BenchRequest(model=str(tmp_path), size_bytes=1 << 60), settings)
    with pytest.raises(fastload.UsageError, match="nobody"):
        run_bench(BenchRequest(model=str(tmp_path), size_bytes=MIB, only=("nobody",)), settings)


def test_a_failing_contestant_costs_its_own_row(tmp_path: Path) -> None:
    write_checkpoint(str(tmp_path), list_tiny(4), shards=1)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(2000)
    wish = BenchRequest(
        model=str(tmp_path), size_bytes=MIB, rounds=1, states=("cached",), only=("fastload-auto", "read-buffered")
    )
    (table,) = run_bench(wish, decide_settings(None, {})).tables
    assert list(table.samples) == ["read-buffered"]
    assert "fastload-auto" in table.errors


def test_who_loads_other_bytes_is_named() -> None:
    table = Table("cold", "cold")
    for name in ("fastload-auto", "safetensors", "runai"):
        table.samples[name] = [sample(name, 1.0)]
    assert "OTHER BYTES" not in table.render()
    table.samples["runai"].append(replace(sample("runai", 1.0), touched_sum=8))
    assert table.render().endswith("OTHER BYTES than most loads found: runai")
    assert table.to_dict()["other_bytes"] == ["runai"]


def test_a_chart_has_a_bar_per_row() -> None:
    table = Table(
        "cold → cpu", "cold", samples={name: [sample(name, s) for s in (1.0, 2.0, 4.0)] for name in CONTESTANTS}
    )
    drawing = ET.fromstring(draw_chart([table, Table("none", "cached")]))  # noqa: S314 - our own
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert set(CONTESTANTS) < set(texts)
    assert texts.count("0.50") == len(CONTESTANTS)
    bars = [e for e in drawing.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill") != "#fff"]
    assert len(bars) == len(CONTESTANTS)
    assert len({bar.get("fill") for bar in bars}) == 3


def test_the_command_prints_one_object_and_draws(tmp_path: Path) -> None:
    volume, chart = tmp_path / "volume", tmp_path / "chart.svg"
    volume.mkdir()
    flags = ["--size", "4Mi", "--rounds", "1", "--states", "cached", "--only", "read-buffered", "--chart", str(chart)]
    command = [sys.executable, "-m", "fastload", "bench", str(volume), *flags, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert list(json.loads(run.stdout)["tables"][0]["rows"]) == ["read-buffered"]
    assert ET.fromstring(chart.read_text()).tag.endswith("svg")  # noqa: S314 - our own


def test_the_page_cache_is_filled_at_the_rate_that_a_share_bears(llama: Files) -> None:
    evict(llama.paths, may_drop_all=False)
    begin_s = time.monotonic()
    fill(llama.paths, 48 * MIB)
    assert time.monotonic() - begin_s > 0.8 * llama.nbytes / (48 * MIB)
    begin_s = time.monotonic()
    fill(llama.paths, 1)  # no byte of it comes from the share
    assert time.monotonic() - begin_s < 10


def test_what_is_made_on_a_share_is_written_at_the_rate_that_it_bears(tmp_path: Path, llama: Files) -> None:
    """To its disk: what the kernel keeps back would come all at once."""
    begin_s = time.monotonic()
    write_checkpoint(str(tmp_path), list_llama(24 * MIB), shards=3, max_rate=24 * MIB)
    assert time.monotonic() - begin_s > 0.6  # a tenth of a second's may come at once, in each shard
    made = list_files(str(tmp_path))
    assert [Path(path).read_bytes() for path in made.paths] == [Path(path).read_bytes() for path in llama.paths]


def test_what_never_leaves_the_page_cache_is_measured_there(tmp_path: Path) -> None:
    """As a model that somebody serves from a mapping."""
    write_checkpoint(str(tmp_path / "model"), list_llama(16 * MIB), shards=1)
    (path,) = list_files(str(tmp_path / "model")).paths
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert sum(mapping[::4096]) >= 0
        wish = BenchRequest(model=str(tmp_path / "model"), size_bytes=MIB << 5, only=["fastload-auto"], rounds=1)
        found = run_bench(wish, decide_settings(fastload.Options(tiers="local"), {}))
    assert [table.state for table in found.tables] == ["cached"]
    assert len(found.tables[0].samples["fastload-auto"]) == 1
    assert "stay in the page cache" in found.skipped["cold"]


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 6.5, or files of another user: nobody says what of them is in the page cache."""
    for module in (page_cache, kernel):
        monkeypatch.setattr(module, "count_cached_pages", lambda *_: None)


@pytest.mark.usefixtures("untold")
def test_where_the_kernel_does_not_tell_it_is_measured_and_said(tmp_path: Path) -> None:
    write_checkpoint(str(tmp_path / "model"), list_llama(16 * MIB), shards=1)
    wish = BenchRequest(model=str(tmp_path / "model"), size_bytes=MIB << 5, only=["read-direct"], rounds=1)
    found = run_bench(wish, decide_settings(fastload.Options(tiers="local"), {}))
    if "cold" in found.skipped:
        pytest.skip(f"not on this file system: {found.skipped['cold']}")
    assert found.tables[0].method == "posix_fadvise(DONTNEED), not proved: cachestat is refused"
    assert not found.tables[0].is_proven
    assert len(found.tables[0].samples["read-direct"]) == 1


@pytest.mark.usefixtures("untold")
def test_what_seems_to_stay_in_the_page_cache_is_not_called_cold(llama: Files) -> None:
    fill(llama.paths)
    with open(llama.paths[0], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as exc:
            pytest.skip(f"not on this file system: {exc}")
        assert sum(mapping[::4096]) >= 0
        with pytest.raises(PageCacheError, match="stay in the page cache"):
            evict(llama.paths, may_drop_all=False)


@pytest.mark.parametrize(
    "words",
    [
        ("--gpus", "4", "--gpus-per-node", "0"),
        ("--chart", "c.png"),
        ("--only", "nobody"),
        ("--device", "foo"),
        ("--gpus", "0"),
        ("--gpus", "8", "--model-size", "0"),
    ],
)
def test_what_would_only_show_at_the_end_is_refused_at_the_beginning(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "old.svg"
    chart.write_text("an older run's")
    assert main(["bench", str(tmp_path), "--chart", str(chart), *words]) == 2
    assert chart.read_text() == "an older run's"
    assert "bug" not in capsys.readouterr().err
