"""A measurement's process: it is given its time and no more, and what it says when it fails is passed on."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fastload.ops.bench.checkpoint import list_llama, list_tiny, write_checkpoint
from fastload.ops.bench.contestants import MAPPING
from fastload.ops.bench.files import Files, Trial, list_files
from fastload.ops.bench.measure import Job
from fastload.ops.bench.page_cache import PageCacheError, evict, fill
from fastload.ops.bench.process import LoadError, count_wanted, run_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(str(folder), list_tiny(4), shards=1)
    return list_files(str(folder))


def test_the_page_cache_is_prepared_before_each_load(tiny: Files) -> None:
    prepared: list[Sequence[str]] = []
    samples = run_job(Job("read-buffered-1", Trial(tiny), None, repeats=3), prepared.append, timeout_s=60)
    assert [sample.nbytes for sample in samples] == [tiny.nbytes] * 3
    assert prepared == [tiny.paths] * 3


@pytest.mark.parametrize("contestant", MAPPING)
def test_who_maps_what_is_in_the_page_cache_takes_no_memory(tiny: Files, contestant: str) -> None:
    fill(tiny.paths)
    assert count_wanted(Job(contestant, Trial(tiny), None)) == 0
    assert count_wanted(Job("fastload-auto", Trial(tiny), None)) == 2 * tiny.nbytes
    evict(tiny.paths, may_drop_all=False)
    assert count_wanted(Job(contestant, Trial(tiny), None)) == tiny.nbytes


def test_one_that_is_gone_when_it_is_answered_took_too_long(tiny: Files) -> None:
    with pytest.raises(LoadError, match="took more than 3 s"):
        run_job(Job("read-buffered-1", Trial(tiny), None), lambda _: time.sleep(4), timeout_s=3)


def test_one_that_takes_too_long_is_ended(tiny: Files) -> None:
    slow = Job("read-buffered-1", Trial(tiny, max_rate=1), None)
    with pytest.raises(LoadError, match="took more than 2 s"):
        run_job(slow, lambda _: None, timeout_s=2)


def test_the_last_line_of_its_complaint_says_why_it_failed(tiny: Files, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no_such_loader"):
        run_job(Job("no_such_loader", Trial(tiny), None), lambda _: None, timeout_s=60)
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"\0" * 100)
    files = list_files(str(tmp_path))
    with pytest.raises(LoadError, match="FormatError"):
        run_job(Job("fastload-auto", Trial(files), None), lambda _: None, timeout_s=60)
    broken.unlink()
    with pytest.raises(LoadError, match="No such file"):
        run_job(Job("fastload-auto", Trial(files), None), lambda _: None, timeout_s=60)


def test_a_page_cache_that_does_not_obey_ends_it_too(tiny: Files) -> None:
    def refuse(_: Sequence[str]) -> None:
        raise PageCacheError("it stays")

    with pytest.raises(PageCacheError):
        run_job(Job("read-buffered-1", Trial(tiny), None), refuse, timeout_s=60)


def test_it_may_have_an_environment_of_its_own(tiny: Files) -> None:
    variables = os.environ | {"FASTLOAD_CONFIG": "/nowhere.toml"}
    with pytest.raises(LoadError, match="nowhere"):
        run_job(Job("fastload-auto", Trial(tiny), None), lambda _: None, timeout_s=60, variables=variables)


@pytest.mark.parametrize("processes", [2])
def test_several_processes_write_what_one_would(tmp_path: Path, processes: int) -> None:
    written = []
    for number in (1, processes):
        folder = tmp_path / str(number)
        write_checkpoint(str(folder), list_llama(4 * MIB), shards=3, processes=number)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert sum(name.endswith(".safetensors") for name in written[0]) > 1
    blocks = [
        content[at : at + 4096] for content in written[0].values() for at in range(4096, len(content) - 4096, 4096)
    ]
    assert len(set(blocks)) == len(blocks)


def test_what_a_job_has_started_ends_with_it(tiny: Files, tmp_path: Path) -> None:
    """It held the pipes, so that whoever measured waited for it, whatever the limit."""
    (tmp_path / "sitecustomize.py").write_text("import subprocess; subprocess.Popen(['sleep', '60'])")
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    job = Job("read-buffered-1", Trial(tiny), None)
    begin_s = time.monotonic()
    assert len(run_job(job, lambda _: None, timeout_s=60, variables=variables)) == 1
    with pytest.raises(LoadError, match="took more than 3 s"):
        run_job(job, lambda _: time.sleep(4), timeout_s=3, variables=variables)
    assert time.monotonic() - begin_s < 40
