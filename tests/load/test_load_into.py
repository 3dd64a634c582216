"""``fastload.load_into`` against ``load_state_dict``, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fastload
from models import MIB, assert_same, same_bytes, save_large

pytestmark = pytest.mark.usefixtures("leaks_nothing")


class Block(nn.Module):
    """A little of everything a model has."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(1024, 2048)
        self.norm = nn.BatchNorm1d(2048)
        self.embed = nn.Embedding(500, 64)


class Tied(nn.Module):
    """Input and output share one matrix, as in many language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 64)
        self.lm_head = nn.Linear(64, 500, bias=False)
        self.lm_head.weight = self.embed.weight


def _save(module: nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    content = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    save_file(content, folder / "model.safetensors")
    return content


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered", "mmap"])
def test_parameters_and_buffers_are_filled_where_they_are(tmp_path: Path, reader: str) -> None:
    content = _save(Block(), tmp_path)
    module = Block()
    before = {name: (tensor.data_ptr(), tensor._version) for name, tensor in module.state_dict(keep_vars=True).items()}
    report = fastload.load_into(module, tmp_path, reader=reader)
    assert_same(module.state_dict(), content)
    for name, tensor in module.state_dict(keep_vars=True).items():
        assert tensor.data_ptr() == before[name][0]
        assert tensor._version > before[name][1], "backward must notice that the value changed"
    assert module.up.weight.requires_grad
    assert report.bytes == sum(t.nbytes for t in content.values())


def test_no_second_copy(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 16 * MIB)  # 512 MiB
    module = nn.Module()
    layer = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(32))
    for i, linear in enumerate(layer):
        linear.weight = nn.Parameter(torch.empty(8 * MIB, dtype=torch.bfloat16).fill_(1))
        module.add_module(f"{i:03}", linear)
    root = nn.ModuleDict({"layer": module})
    peak = "/proc/self/clear_refs"
    Path(peak).write_text("5")  # resets VmHWM
    before = _peak_bytes()
    fastload.load_into(root, tmp_path)
    assert _peak_bytes() - before < 100 * MIB


def _peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_dtypes_are_cast_to_the_parameters(tmp_path: Path) -> None:
    content = _save(nn.Linear(300, 300), tmp_path)
    module = nn.Linear(300, 300).to(torch.bfloat16)
    fastload.load_into(module, tmp_path)
    assert_same(module.state_dict(), {name: tensor.to(torch.bfloat16) for name, tensor in content.items()})


def test_dtype_keyword_checks_and_converts_nothing(tmp_path: Path) -> None:
    _save(nn.Linear(3, 3), tmp_path)
    fastload.load_into(nn.Linear(3, 3), tmp_path, dtype="F32")
    with pytest.raises(fastload.UsageError, match=r"asked for torch\.bfloat16"):
        fastload.load_into(nn.Linear(3, 3), tmp_path, dtype="BF16")


def test_quantised_weights_are_not_cast(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    with pytest.raises(fastload.UsageError, match="quantization_config"):
        fastload.load_into(nn.Linear(3, 3).to(torch.bfloat16), tmp_path)
    fastload.load_into(nn.Linear(3, 3), tmp_path)


def test_parameter_that_is_not_contiguous(tmp_path: Path) -> None:
    content = {"weight": torch.randn(40, 30), "bias": torch.randn(40)}
    save_file(content, tmp_path / "model.safetensors")
    module = nn.Linear(30, 40)
    module.weight = nn.Parameter(torch.zeros(30, 40).t())
    fastload.load_into(module, tmp_path)
    assert_same(module.state_dict(), content)


def test_tied_parameter_is_not_missing(tmp_path: Path) -> None:
    weight = torch.randn(500, 64)
    save_file({"embed.weight": weight}, tmp_path / "model.safetensors")
    module = Tied()
    fastload.load_into(module, tmp_path)
    assert same_bytes(module.lm_head.weight, weight)


def test_tied_parameter_stored_twice(tmp_path: Path) -> None:
    weight = torch.randn(500, 64)
    weight[0, 0] = float("nan")
    save_file({"embed.weight": weight, "lm_head.weight": weight.clone()}, tmp_path / "model.safetensors")
    module = Tied()
    fastload.load_into(module, tmp_path)
    assert same_bytes(module.embed.weight, weight)


def test_tied_parameter_with_two_different_tensors_is_an_error(tmp_path: Path) -> None:
    save_file(
        {"embed.weight": torch.zeros(500, 64), "lm_head.weight": torch.ones(500, 64)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(fastload.UsageError, match=r"tied.*differ.*content is undefined"):
        fastload.load_into(Tied(), tmp_path)


def test_views_of_one_storage_are_filled_each(tmp_path: Path) -> None:
    fused = torch.zeros(30, 10)
    module = nn.Module()
    for i, name in enumerate("qkv"):
        module.register_parameter(name, nn.Parameter(fused[10 * i : 10 * i + 10]))
    content = {name: torch.randn(10, 10) for name in "qkv"}
    save_file(content, tmp_path / "model.safetensors")
    fastload.load_into(module, tmp_path)
    assert same_bytes(fused, torch.cat(list(content.values())))


def test_meta_parameters_name_the_cure(tmp_path: Path) -> None:
    _save(nn.Linear(3, 3), tmp_path)
    with torch.device("meta"):
        module = nn.Linear(3, 3)
    with pytest.raises(fastload.UsageError, match="to_empty"):
        fastload.load_into(module, tmp_path)
    module.to_empty(device="cpu")
    fastload.load_into(module, tmp_path)


def test_every_mismatch_is_in_one_error(tmp_path: Path) -> None:
    content = {"weight": torch.ones(3, 4), "bias": torch.ones(3, dtype=torch.int64), "extra": torch.ones(1)}
    save_file(content, tmp_path / "model.safetensors")
    module = nn.Linear(3, 3)
    module.register_buffer("scale", torch.ones(1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(fastload.UsageError) as caught:
        fastload.load_into(module, tmp_path)
    text = str(caught.value)
    for part in ("'weight' is [3, 3], stored [3, 4]", "'bias' is torch.float32, stored I64", "'scale'", "'extra'"):
        assert part in text
    assert_same(module.state_dict(), before)


def test_not_strict_leaves_out_what_has_no_counterpart(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 3), "extra": torch.ones(1)}, tmp_path / "model.safetensors")
    module = nn.Linear(3, 3)
    bias = module.bias.detach().clone()
    report = fastload.load_into(module, tmp_path, strict=False)
    assert same_bytes(module.weight, torch.ones(3, 3))
    assert same_bytes(module.bias, bias)
    assert report.tensors == 1


def test_tensors_that_are_not_wanted_are_not_missing(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 3)}, tmp_path / "model.safetensors")
    fastload.load_into(nn.Linear(3, 3), tmp_path, tensors="weight")
    with pytest.raises(fastload.UsageError, match="missing: 'bias'"):
        fastload.load_into(nn.Linear(3, 3), tmp_path)


def test_missing_parameter_that_a_glob_wants_is_missing(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(3, 3)}, tmp_path / "model.safetensors")
    module = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    with pytest.raises(fastload.UsageError, match=r"missing: 'b\.weight'"):
        fastload.load_into(module, tmp_path, tensors="*.weight")


def test_error_while_reading_says_that_the_content_is_undefined(tmp_path: Path) -> None:
    save_large(tmp_path, 2, MIB)
    linears = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    for linear in linears:
        linear.weight = nn.Parameter(torch.empty(MIB // 2, dtype=torch.bfloat16))
    root = nn.ModuleDict({"layer": nn.ModuleDict({f"{i:03}": linear for i, linear in enumerate(linears)})})

    def change(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fastload.load_into(root, tmp_path, progress=change)
    assert "content is undefined" in caught.value.__notes__[0]


def test_wrappers_are_refused(tmp_path: Path) -> None:
    _save(nn.Linear(3, 3), tmp_path)

    class Wrapper(torch.Tensor):
        __tensor_flatten__ = None

    module = nn.Linear(3, 3)
    module.weight = nn.Parameter(torch.ones(3, 3).as_subclass(Wrapper))
    with pytest.raises(fastload.UnsupportedError, match="Wrapper"):
        fastload.load_into(module, tmp_path)


def test_empty_and_scalar_parameters(tmp_path: Path) -> None:
    module = nn.Module()
    module.register_parameter("none", nn.Parameter(torch.empty(0, 4)))
    module.register_buffer("count", torch.tensor(0))
    module.register_buffer("local", torch.tensor(5), persistent=False)
    content = {"none": torch.empty(0, 4), "count": torch.tensor(7)}
    save_file(content, tmp_path / "model.safetensors")
    fastload.load_into(module, tmp_path)
    assert_same(module.state_dict(), content)
