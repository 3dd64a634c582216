"""Tensor-parallel ranks: they load as a group, or say why not; their parameters are those of vLLM's own loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import fastload
from engines import digest_draft, digests, engine, generate, outcome
from fastload._store.keep.reports import read_reports
from fastload._store.layout import RepoLayout, repo_folder
from fastload._verify.digest import BLOCK_BYTES
from stored_models import COMMIT, write_cache
from tiny_models import make_llama, make_mixtral

if TYPE_CHECKING:
    from pathlib import Path

    from engines import Engines

TWO_RANKS: dict[str, Any] = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
REPO = "org/tiny"


@pytest.fixture
def warmed(llama: Path, tiers: Path) -> Path:
    """A tier with a snapshot beside which reports are kept."""
    write_cache(tiers / "local", REPO, COMMIT, {path.name: path.read_bytes() for path in llama.iterdir()})
    fastload.warm(REPO)
    return tiers / "local"


def reports(tier: Path) -> list[dict[str, Any]]:
    """Of the loads that ended."""
    return read_reports(RepoLayout(repo_folder(str(tier), REPO)), COMMIT)


def weight_bytes(model: Path) -> int:
    """Of all shards."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def header_bytes(model: Path) -> int:
    """What each rank proves for the headers: the first block of each shard."""
    return sum(min(BLOCK_BYTES, path.stat().st_size) for path in model.glob("*.safetensors"))


def test_each_byte_leaves_storage_once(
    engines: Engines, llama: Path, warmed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = engines.expected(str(llama), **TWO_RANKS)
    assert outcome(REPO, **TWO_RANKS) == expected
    (report,) = reports(warmed)
    read = [rank["bytes_read"] for rank in report["group"]["ranks"]]
    assert len(read) == 2
    shares = [each - header_bytes(llama) for each in read]
    assert min(shares) > 0
    assert weight_bytes(llama) <= sum(shares) <= 1.05 * weight_bytes(llama)
    assert "; 2 ranks read " in capfd.readouterr().out


def test_ranks_may_load_each_for_itself(
    engines: Engines, llama: Path, warmed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = engines.expected(str(llama), **TWO_RANKS)
    assert outcome(REPO, model_loader_extra_config={"group": False}, **TWO_RANKS) == expected
    assert all(report["group"] is None for report in reports(warmed))
    assert "each rank reads for itself: group is false" in capfd.readouterr().out


def test_a_wrong_byte_on_one_rank_ends_the_start(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads it names the file; the other rank is told. Each proves the first block itself, with the header."""
    wide = make_llama(tmp_path / "wide", intermediate_size=20480)
    files = {path.name: path.read_bytes() for path in wide.iterdir()}
    snapshot = write_cache(tiers / "local", REPO, COMMIT, files)
    fastload.warm(REPO)
    name = max(files, key=lambda name: len(files[name]))
    assert len(files[name]) > BLOCK_BYTES
    (snapshot / name).resolve().write_bytes(files[name][:-1] + bytes([files[name][-1] ^ 1]))
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    with pytest.raises(Exception, match="WorkerProc initialization failed"):
        outcome(REPO, **TWO_RANKS)
    said = capfd.readouterr().out
    assert f"fastload.errors.IntegrityError: '{snapshot / name}'" in said
    assert "failed: IntegrityError: " in said


def test_a_reload_is_each_ranks_own(
    engines: Engines, llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    after = engines.expected(str(llama), **TWO_RANKS)
    with engine(str(make_llama(tmp_path / "other", seed=1)), **TWO_RANKS) as llm:
        assert digests(llm) != after.digests
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(llama)})
        assert (digests(llm), generate(llm)) == (after.digests, after.tokens)
    assert "each rank reads for itself: a reload" in capfd.readouterr().out


def test_a_draft_model_is_each_ranks_own(
    llama: Path, tiers: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draft = make_llama(tmp_path / "draft", seed=1)
    drafted = {"method": "draft_model", "num_speculative_tokens": 2, "model": str(draft)}
    with engine(str(llama), "safetensors", speculative_config=drafted, **TWO_RANKS) as llm:
        expected = digests(llm), llm.collective_rpc(digest_draft)
    with engine(str(llama), speculative_config=drafted, **TWO_RANKS) as llm:
        assert (digests(llm), llm.collective_rpc(digest_draft)) == expected
    said = capfd.readouterr().out
    assert "; 2 ranks read " in said
    assert "each rank reads for itself: a draft model" in said


def test_stages_of_a_pipeline_are_each_ranks_own(
    engines: Engines, llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not asked for tokens: this vLLM's scheduler fails over stages on the CPU, whoever loaded them."""
    stages: dict[str, Any] = {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}
    expected = engines.expected(str(llama), speaks=False, **stages)
    assert outcome(str(llama), speaks=False, **stages) == expected
    assert "each rank reads for itself: pipeline parallelism" in capfd.readouterr().out


def test_experts_of_other_ranks_are_not_read(
    engines: Engines, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not asked for tokens: this vLLM's kernel for experts on the CPU crashes, whoever loaded them."""
    model = str(make_mixtral(tmp_path / "mixtral"))
    filtered = TWO_RANKS | {"enable_expert_parallel": True, "enable_ep_weight_filter": True}
    expected = engines.expected(model, speaks=False, **filtered)
    assert outcome(model, speaks=False, **filtered) == expected
    assert "each rank reads for itself: each wants other experts" in capfd.readouterr().out
