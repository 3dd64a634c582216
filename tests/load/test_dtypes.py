"""Every dtype of the format, and ``dtype=``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

import fastload
from hub_faults import Body
from hub_server import HubServer, Repo
from models import assert_same, random_tensor, same_bytes
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TORCH_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.float8_e8m0fnu,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.int16,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.uint32,
    torch.float32,
    torch.complex64,
    torch.float64,
    torch.int64,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_what_safetensors_writes_is_what_is_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = torch.zeros(480, dtype=torch.uint8) if dtype == torch.bool else random_tensor(480, 1, torch.uint8)
    content = {"a": raw.view(dtype).reshape(2, -1), "b": raw[:8].clone().view(dtype)}
    save_file(content, tmp_path / "model.safetensors")
    assert_same(fastload.load(tmp_path), content)


def test_packed_dtypes_are_torchs_own_where_it_has_them_else_bytes(tmp_path: Path) -> None:
    data = bytes(range(24))
    tensors = {
        "f4": ("F4", [4, 12], data),
        "odd": ("F4", [16, 3], data),
        "f6": ("F6_E2M3", [4, 8], data),
        "f6too": ("F6_E3M2", [32], data),
    }
    (tmp_path / "model.safetensors").write_bytes(pack(tensors))
    weights = fastload.load(tmp_path)
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in weights.items()}
    assert shapes == {
        "f4": (torch.float4_e2m1fn_x2, (4, 6)),
        "odd": (torch.uint8, (24,)),
        "f6": (torch.uint8, (24,)),
        "f6too": (torch.uint8, (24,)),
    }
    assert all(bytes(tensor.view(torch.uint8).flatten().tolist()) == data for tensor in weights.values())


@pytest.mark.parametrize("target", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("reader", ["auto", "mmap"])
def test_cast_is_torchs_own(tmp_path: Path, target: torch.dtype, reader: str) -> None:
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    content = {str(dtype): torch.randn(600, 1000).to(dtype) for dtype in floats}
    content |= {"int": torch.arange(9), "bool": torch.tensor([True]), "complex": torch.ones(2, dtype=torch.complex64)}
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path, dtype=target, reader=reader)
    assert_same(weights, {n: t.to(target) if t.dtype in floats else t for n, t in content.items()})


@pytest.mark.parametrize("spelling", ["BF16", torch.bfloat16])
def test_both_spellings(tmp_path: Path, spelling: str | torch.dtype) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    ((_, tensor),) = fastload.stream(tmp_path, dtype=spelling)
    assert same_bytes(tensor, torch.ones(3, dtype=torch.bfloat16))


@pytest.mark.parametrize("target", ["I8", "bf16", "float32", torch.int8, 7])
def test_targets_that_cannot_be_cast_to(tmp_path: Path, target: str) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UsageError, match="BF16, F16, F32, F64"):
        fastload.load(tmp_path, dtype=target)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8"])
def test_weights_that_may_be_quantised_are_not_cast(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({"q": (dtype, [4], b"\1\2\3\4")}))
    with pytest.raises(fastload.UsageError, match=f"'q'.*{dtype}"):
        fastload.load(tmp_path, dtype="BF16")


def test_model_with_a_quantization_config_is_not_cast(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(fastload.UsageError, match="quantization_config"):
        fastload.load(tmp_path, dtype="BF16")
    assert list(fastload.load(tmp_path)) == ["a"]


def test_config_elsewhere_is_not_opened(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_file({"a": torch.ones(3)}, model / "model.safetensors")
    (tmp_path / "other.json").write_text("{}")
    (model / "config.json").symlink_to("../other.json")
    with pytest.raises(fastload.FormatError, match=r"config\.json.*found a link"):
        fastload.load(model, dtype="BF16")


def test_config_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    """Else a quantised model whose config is a broken link would be cast."""
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").symlink_to("nowhere.json")
    with pytest.raises(fastload.FormatError, match=r"config\.json"):
        fastload.load(tmp_path, dtype="BF16")


def test_a_config_as_python_writes_it_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity], "x": NaN}')
    assert fastload.load(tmp_path, dtype="BF16")["a"].dtype == torch.bfloat16


@pytest.mark.parametrize("piece", [b"[],", b'{"a":' * 90 + b"0" + b"}" * 90 + b","])
def test_a_config_full_of_values_that_no_model_has_is_refused_before_it_is_parsed(tmp_path: Path, piece: bytes) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    raw = b'{"x": [' + piece * ((4 << 20) // len(piece)) + b"0]}"
    (tmp_path / "config.json").write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(fastload.FormatError, match=f"more than {len(raw) // 12:,} JSON values"):
            fastload.load(tmp_path, dtype="BF16")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()


def test_a_flood_cannot_hide_in_another_encoding(tmp_path: Path) -> None:
    """In UTF-16, which no loader takes, a quote in a string is not the two bytes by which it is told."""
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(('{"\\"": [' + "{}," * 400_000 + "0]}").encode("utf-16"))
    tracemalloc.start()
    try:
        with pytest.raises(fastload.FormatError, match="no JSON"):
            fastload.load(tmp_path, dtype="BF16")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_config_nested_without_end_ends_no_process(tmp_path: Path) -> None:
    """One that has raised its recursion limit, as others in it may, would have no stack left."""
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a":' * 200_000 + "0" + "}" * 200_000)
    load = (
        "import sys, fastload; sys.setrecursionlimit(10**6)\n"
        "try: fastload.load(sys.argv[1], dtype='BF16')\n"
        "except fastload.FormatError as error: print(error.found)"
    )
    done = subprocess.run([sys.executable, "-c", load, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "no JSON (more than 127 levels of nesting)\n"), done.stderr


@pytest.mark.parametrize(
    "config",
    [
        {
            "id2label": {str(n): f"LABEL_{n}" for n in range(250_000)},
            "label2id": {f"LABEL_{n}": n for n in range(250_000)},
        },
        {"id2label": {str(n): f"{n:x}" for n in range(500_000)}},
        {
            "mixed": {
                f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj": {"quant_algo": "NVFP4", "group_size": 16}
                for layer in range(80)
                for expert in range(384)
                for name in ("gate", "up", "down")
            }
        },
    ],
    ids=["labels", "short labels", "layers"],
)
def test_the_largest_configs_are_no_such_flood(tmp_path: Path, config: dict[str, Any]) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config, separators=(",", ":")))
    assert fastload.load(tmp_path, dtype="BF16")["a"].dtype == torch.bfloat16


def test_a_quantization_config_elsewhere_in_the_model_counts_too(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    save_file({"a": torch.ones(3)}, tmp_path / "part" / "model.safetensors")
    (tmp_path / "part" / "config.json").write_text("{}")
    for config in ({"quantization_config": {"bits": 4}}, {"text_config": {"quantization_config": {"bits": 4}}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(fastload.UsageError, match="quantization_config"):
            fastload.load(tmp_path, subfolder="part", dtype="BF16")


@pytest.mark.parametrize("quantised", ["config.json", "part/config.json", None])
def test_a_quantization_config_that_only_the_hub_has_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantised: str | None
) -> None:
    weights = pack({"a": ("F32", [4], bytes(16))})
    files = {"part/model.safetensors": weights, "config.json": b"{}", "part/config.json": b"{}"}
    if quantised is not None:
        files[quantised] = b'{"quantization_config": {"bits": 4}}'
    options = fastload.Options(local=str(tmp_path), write_through="off")
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        if quantised is None:
            loaded = fastload.load("org/name", subfolder="part", dtype="BF16", options=options)
            assert loaded["a"].dtype == torch.bfloat16
            return
        with pytest.raises(fastload.UsageError, match="quantization_config"):
            fastload.load("org/name", subfolder="part", dtype="BF16", options=options)


def test_a_config_that_comes_wrong_from_the_hub_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has lost its quantization_config would let a model be cast that must not be."""
    files = {
        "model.safetensors": pack({"a": ("F32", [4], bytes(16))}),
        "config.json": b'{"quantization_config": {"bits": 4}}',
    }
    options = fastload.Options(local=str(tmp_path), write_through="off")
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        sent = files["config.json"].replace(b"quant", b"quent")
        hub.faults.add(Body(sent), path="*/config.json", times=None)
        with pytest.raises(fastload.IntegrityError, match=r"config\.json"):
            fastload.load("org/name", dtype="BF16", options=options)


@pytest.mark.parametrize(
    ("config", "is_quantised"),
    [
        ({"quantization_config": {}}, True),
        ({"quantization_config": None}, False),
        ({"vision_config": {"quantization_config": {}}}, True),
        ({"thinker_config": {"text_config": {"quantization_config": {"bits": 4}}}}, True),
        ({"text_config": {"quantization_config": None}, "vision_config": {}}, False),
        ({"architectures": ["quantization_config"]}, False),
    ],
)
def test_a_quantization_config_counts_wherever_it_is_and_whatever_it_says(
    tmp_path: Path,
    config: dict[str, object],
    is_quantised: bool,  # noqa: FBT001
) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    if not is_quantised:
        assert fastload.load(tmp_path, dtype="BF16")["a"].dtype == torch.bfloat16
        return
    with pytest.raises(fastload.UsageError, match="quantization_config"):
        fastload.load(tmp_path, dtype="BF16")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_what_is_no_file_names_the_file_that_belongs_there(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    make(tmp_path / name)
    with pytest.raises(fastload.FormatError) as caught:
        fastload.load(tmp_path, dtype="BF16")
    assert caught.value.path == str(tmp_path / name)
    assert "shard" not in caught.value.hint
