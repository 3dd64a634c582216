"""``--metrics-file``, read by Prometheus' own parser."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fastload.cli.metrics import measured, written_at_end
from fastload.ops.metrics.file import MetricsFile
from fastload.ops.metrics.gauges import HELP
from fastload.ops.metrics.text import Sample, render
from stored_models import COMMIT, model_files, write_cache
from warming import MIB, Tiers, large_shard

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, model_files())
    return made


def _parse(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By gauge and the values of its labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def _read(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    return _parse(path.read_text())


def test_a_load_leaves_its_gauges(tiers: Tiers) -> None:
    tiers.warm(REPO)
    path = tiers.folder / "fastload.prom"
    report = json.loads(tiers.run("load", REPO, "--json", "--metrics-file", path).stdout)
    found = _read(path)
    assert set(found) == set(HELP)
    assert found["fastload_last_success"] == {(REPO,): 1.0}
    assert found["fastload_last_load_seconds"] == {(REPO,): report["seconds"]}
    stages = found["fastload_last_stage_seconds"]
    assert stages == {(REPO, stage): seconds for stage, seconds in report["stages"].items()}
    assert sum(stages.values()) == pytest.approx(report["seconds"])
    assert found["fastload_last_bytes"] == {(REPO,): report["bytes"]}
    assert found["fastload_last_read_bytes"] == {(REPO, "local"): report["bytes_read"]}
    assert found["fastload_last_store_bytes"][("local",)] > 0
    assert sorted(os.listdir(tiers.folder)) == ["fastload.prom", "local", "shared"]


def test_mended_blocks_are_counted(tiers: Tiers) -> None:
    snapshot = tiers.warm(REPO)
    blob = (snapshot / "model-00001-of-00002.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    path = tiers.folder / "fastload.prom"
    report = json.loads(tiers.run("load", REPO, "--json", "--metrics-file", path).stdout)
    assert report["blocks_repaired"] >= 1
    assert _read(path)["fastload_last_repaired_blocks"] == {(REPO,): report["blocks_repaired"]}
    assert _read(path)["fastload_last_verify_failures"] == {(REPO,): report["blocks_reread"]}
    size = (snapshot / "model-00001-of-00002.safetensors").stat().st_size
    by_tier = {
        (REPO, "local"): report["bytes_read"],
        (REPO, f"shared:{tiers.shared}"): size * report["blocks_repaired"],
    }
    assert _read(path)["fastload_last_read_bytes"] == by_tier


def test_what_brings_a_lost_file_back_is_read_from_its_tier(tiers: Tiers) -> None:
    shard = tiers.warm(REPO) / "model-00001-of-00002.safetensors"
    size = shard.stat().st_size
    shard.resolve().unlink()
    shard.unlink()
    path = tiers.folder / "fastload.prom"
    assert tiers.run("load", REPO, "--metrics-file", path).returncode == 0
    assert _read(path)["fastload_last_read_bytes"][(REPO, f"shared:{tiers.shared}")] == size


def test_warm_has_all_names_also_those_that_failed(tiers: Tiers) -> None:
    path = tiers.folder / "fastload.prom"
    done = tiers.run("warm", "org/nowhere", REPO, "--metrics-file", path)
    assert done.returncode == 12
    found = _read(path)
    assert found["fastload_last_success"] == {("org/nowhere",): 0.0, (REPO,): 1.0}
    assert found["fastload_last_exit_code"] == {("org/nowhere",): 12.0, (REPO,): 0.0}
    tier = f"shared:{tiers.shared}"
    assert found["fastload_last_read_bytes"][(REPO, tier)] >= sum(map(len, model_files().values()))


@pytest.mark.parametrize(("name", "code"), [(REPO, 0), ("org/nowhere", 12)])
def test_a_plan_is_no_attempt(tiers: Tiers, name: str, code: int) -> None:
    path = tiers.folder / "fastload.prom"
    assert tiers.run("warm", name, "--dry-run", "--metrics-file", path).returncode == code
    assert not path.exists()
    tiers.run("warm", REPO, "--metrics-file", path)
    before = path.read_bytes()
    assert tiers.run("warm", name, "--dry-run", "--metrics-file", path).returncode == code
    assert path.read_bytes() == before


def test_a_load_that_fails_says_so(tiers: Tiers) -> None:
    for root in (tiers.shared,):
        blob = (root / "models--org--name/snapshots" / COMMIT / "model-00001-of-00002.safetensors").resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    path = tiers.folder / "fastload.prom"
    assert tiers.run("load", REPO, "--metrics-file", path).returncode == 13
    found = _read(path)
    assert found["fastload_last_exit_code"] == {(REPO,): 13.0}
    assert found["fastload_last_verify_failures"][(REPO,)] >= 1
    assert "fastload_last_load_seconds" not in found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("verb", ["warm", "load"])
def test_an_attempt_that_a_signal_ended_did_not_succeed(
    tiers: Tiers, number: signal.Signals, code: int, verb: str
) -> None:
    """In the middle of a transfer; else nothing would say that the model did not come."""
    large = "org/large"
    write_cache(tiers.shared, large, COMMIT, {"model.safetensors": large_shard(24 * MIB, 1)})
    path = tiers.folder / "fastload.prom"
    tiers.run("load", REPO, "--metrics-file", path)
    running = tiers.start(verb, large, "--metrics-file", path, "--max-rate", "4Mi", FASTLOAD_WRITE_THROUGH="on")
    tiers.wait_staged(large)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code, said
    assert _read(path)["fastload_last_success"] == {(large,): 0.0}
    assert _read(path)["fastload_last_exit_code"] == {(large,): float(code)}


def test_a_bug_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "fastload.prom"
    metrics = MetricsFile(str(path), None)
    with pytest.raises(ZeroDivisionError), written_at_end(metrics), measured(metrics, REPO):
        _ = 1 / 0
    assert _read(path)["fastload_last_exit_code"] == {(REPO,): 1.0}


def test_a_file_that_cannot_be_written_costs_no_load(tiers: Tiers) -> None:
    done = tiers.run("warm", REPO, "--metrics-file", tiers.folder / "no" / "such" / "x.prom")
    assert done.returncode == 15
    assert not tiers.local.exists()


names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(names, texts, max_size=3), st.floats(allow_nan=False))
def test_any_label_comes_back(labels: dict[str, str], value: float) -> None:
    text = render([Sample("gauge", value, labels)], {"gauge": "What\nit is."})
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == labels
    assert sample.value == value
    assert render([], {"gauge": ""}) == ""
