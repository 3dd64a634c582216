"""``fastload.load_into`` against ``load_state_dict``, and what it refuses."""

from __future__ import annotations

import functools
import mmap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fastload
from models import MIB, assert_same, same_bytes, save_large

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("is_beside", [False, True], ids=["the tensor itself", "a quantization_config"])
def test_dtype_is_refused_where_load_refuses_it_also_if_nothing_would_be_cast(
    tmp_path: Path,
    is_beside: bool,  # noqa: FBT001
) -> None:
    """Whoever says that the parameters are F32 is told that something else is there."""
    stored = torch.float32 if is_beside else torch.float8_e4m3fn
    save_file({"weight": torch.zeros(3).to(stored)}, tmp_path / "model.safetensors")
    if is_beside:
        (tmp_path / "config.json").write_text('{"quantization_config": {}}')
    module = nn.Module()
    module.register_buffer("weight", torch.zeros(3).to(stored))
    fastload.load_into(module, tmp_path)
    for load in (fastload.load, functools.partial(fastload.load_into, module)):
        with pytest.raises(fastload.UsageError, match=r"cannot (be )?cast"):
            load(tmp_path, dtype="F32")


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


def _module(**tensors: torch.Tensor) -> nn.Module:
    """A module of these parameters, and buffers where they are no parameters."""
    module = nn.Module()
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor)
    return module


def test_part_of_a_storage_that_another_part_does_not_fill_is_missing(tmp_path: Path) -> None:
    save_file({"a": torch.ones(10)}, tmp_path / "model.safetensors")
    fused = torch.full((20,), -7.0)
    module = _module(a=nn.Parameter(fused[:10]), b=nn.Parameter(fused[10:]))
    with pytest.raises(fastload.UsageError, match="missing: 'b'"):
        fastload.load_into(module, tmp_path)
    assert fused.eq(-7).all()


@pytest.mark.parametrize("stored", ["whole", "parts", "both", "parts first"])
def test_whole_and_parts_fill_each_other(tmp_path: Path, stored: str) -> None:
    value = torch.randn(30, 10)
    parts = {name: value[10 * i : 10 * i + 10].clone() for i, name in enumerate("kqv")}
    whole = {"z" if stored == "parts first" else "a": value}
    save_file(
        {"whole": whole, "parts": parts}.get(stored, whole | parts),
        tmp_path / "model.safetensors",
    )
    fused = torch.zeros(30, 10)
    module = _module(
        **dict.fromkeys(whole, nn.Parameter(fused)),
        **{name: nn.Parameter(fused[10 * i : 10 * i + 10]) for i, name in enumerate("kqv")},
    )
    fastload.load_into(module, tmp_path)
    assert same_bytes(fused, value)


def test_part_that_differs_from_the_stored_whole_is_an_error(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(30), "k": torch.ones(10)}, tmp_path / "model.safetensors")
    fused = torch.zeros(30)
    with pytest.raises(fastload.UsageError, match="'k' is tied"):
        fastload.load_into(_module(a=fused, k=fused[10:20]), tmp_path)


def test_transposed_twin_is_not_missing(tmp_path: Path) -> None:
    weight = torch.randn(30, 20)
    save_file({"a": weight}, tmp_path / "model.safetensors")
    own = torch.zeros(30, 20)
    fastload.load_into(_module(a=own, b=own.t()), tmp_path)
    assert same_bytes(own, weight)


def test_columns_of_one_matrix_are_filled_each(tmp_path: Path) -> None:
    content = {"a": torch.randn(30, 4), "b": torch.randn(30, 6)}
    save_file(content, tmp_path / "model.safetensors")
    fused = torch.zeros(30, 10)
    module = _module(a=nn.Parameter(fused[:, :4]), b=nn.Parameter(fused[:, 4:]))
    fastload.load_into(module, tmp_path)
    assert same_bytes(fused, torch.cat([content["a"], content["b"]], dim=1))
    save_file({"a": content["a"]}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UsageError, match="missing: 'b'"):
        fastload.load_into(module, tmp_path)


def test_parameters_that_overlap_in_part_are_refused_by_both_names(tmp_path: Path) -> None:
    save_file({"a": torch.ones(10), "b": torch.ones(10)}, tmp_path / "model.safetensors")
    fused = torch.full((15,), -7.0)
    with pytest.raises(fastload.UnsupportedError, match="'a' and 'b' share some"):
        fastload.load_into(_module(a=fused[:10], b=fused[5:]), tmp_path)
    assert fused.eq(-7).all()


def test_parameter_in_a_million_pieces_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(MIB + 1)}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UnsupportedError, match=r"'a'.*pieces.*contiguous"):
        fastload.load_into(_module(a=torch.zeros(2 * MIB + 2)[::2]), tmp_path)


class Cloning(nn.Linear):
    """Its hook gives copies."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_state_dict_post_hook(self._clone)  # type: ignore[no-untyped-call]

    @staticmethod
    def _clone(_module: nn.Module, state: dict[str, torch.Tensor], _prefix: str, _metadata: object) -> None:
        state |= {name: tensor.clone() for name, tensor in state.items()}


class Extra(nn.Linear):
    """It has a state beside its parameters."""

    def __init__(self) -> None:
        super().__init__(3, 3)

    def get_extra_state(self) -> torch.Tensor:
        return torch.zeros(3)


@pytest.mark.parametrize(("module", "name"), [(Cloning(), "weight"), (Extra(), "_extra_state")])
def test_what_is_not_the_modules_own_is_refused(tmp_path: Path, module: nn.Module, name: str) -> None:
    content = {"weight": torch.ones(3, 3), "bias": torch.ones(3), "_extra_state": torch.ones(3)}
    save_file(content, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UnsupportedError, match=f"'{name}'.*lost"):
        fastload.load_into(module, tmp_path, strict=False)


@pytest.mark.parametrize(
    ("tensor", "cure"),
    [
        (torch.ones(3, dtype=torch.complex64).conj(), "resolve_conj"),
        (torch.ones(3, dtype=torch.complex64).conj().imag, "resolve_neg"),
        (torch.ones(1).expand(3), "clone"),
        (torch.ones(4).as_strided((3, 2), (1, 1)), "clone"),
        (torch.ones(3).to_sparse(), "to_dense"),
    ],
)
def test_buffers_that_cannot_be_filled_name_the_cure(tmp_path: Path, tensor: torch.Tensor, cure: str) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UnsupportedError, match=f"'a'.*{cure}"):
        fastload.load_into(_module(a=tensor), tmp_path)


def _emptied() -> torch.Tensor:
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(0)
    return tensor


def _cut_short() -> torch.Tensor:
    tensor = torch.ones(5)[2:]
    tensor.untyped_storage().resize_(16)
    return tensor


def _mapped_to_read() -> torch.Tensor:
    mapping = mmap.mmap(-1, 12, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that writing to it is undefined
        return torch.frombuffer(mapping, dtype=torch.float32)


class Around(torch.Tensor):
    """A wrapper without memory of its own, which says so to nobody."""

    around: torch.Tensor

    @classmethod
    def of(cls, inner: torch.Tensor) -> torch.Tensor:
        made: Around = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.around = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """It can be detached, and nothing else."""
        assert func is torch.ops.aten.detach.default
        return cls.of(args[0].around)


def _around() -> torch.Tensor:
    return Around.of(torch.ones(3))


_UNFILLABLE: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "emptied": (_emptied, "holds 0 bytes"),
    "cut": (_cut_short, "holds 16 bytes"),
    "mapped": (_mapped_to_read, "only be read"),
    "around": (_around, "Around"),
}


@pytest.mark.parametrize("reader", ["auto", "mmap"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", _UNFILLABLE)
def test_memory_that_cannot_be_written_is_refused(tmp_path: Path, case: str, stored: torch.dtype, reader: str) -> None:
    """Each of these would end the process."""
    save_file({"first": torch.ones(3), "last": torch.ones(3, dtype=stored)}, tmp_path / "model.safetensors")
    build, found = _UNFILLABLE[case]
    module = _module(first=torch.zeros(3), last=build())
    with pytest.raises(fastload.UnsupportedError, match=f"'last'.*{found}"):
        fastload.load_into(module, tmp_path, reader=reader)
    assert same_bytes(module.get_buffer("first"), torch.zeros(3))


def test_all_that_cannot_be_filled_is_in_one_error(tmp_path: Path) -> None:
    tensors = {name: build() for name, (build, _) in _UNFILLABLE.items()}
    tensors |= {f"expanded {i}": torch.ones(1).expand(3) for i in range(30)}
    save_file({"good": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UnsupportedError) as caught:
        fastload.load_into(_module(good=torch.ones(3), **tensors), tmp_path, strict=False)
    text = str(caught.value)
    for name, (_, found) in _UNFILLABLE.items():
        assert f"'{name}'" in text
        assert found in text
    assert "and 14 more" in text
    assert text.count("Register a .clone() of it") == 1


def test_private_mapping_of_a_file_is_filled(tmp_path: Path) -> None:
    """It may be written to, even where the file may not."""
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "zeros").write_bytes(bytes(12))
    (tmp_path / "zeros").chmod(0o400)
    tensor = torch.from_file(str(tmp_path / "zeros"), size=3, dtype=torch.float32)
    fastload.load_into(_module(a=tensor), tmp_path)
    assert same_bytes(tensor, torch.ones(3))
    assert (tmp_path / "zeros").read_bytes() == bytes(12)


def test_lazy_parameters_name_the_cure(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, tmp_path / "model.safetensors")
    module = nn.LazyLinear(3)
    with pytest.raises(fastload.UsageError, match="Run the module once"):
        fastload.load_into(module, tmp_path)
    module(torch.ones(3))
    fastload.load_into(module, tmp_path)
    assert same_bytes(module.weight, torch.ones(3, 3))


@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
@pytest.mark.parametrize("inside", [False, True])
def test_inference_tensors_are_filled(tmp_path: Path, stored: torch.dtype, inside: bool) -> None:  # noqa: FBT001
    content = {"weight": torch.randn(3, 3, dtype=stored), "bias": torch.randn(3, dtype=stored)}
    save_file(content, tmp_path / "model.safetensors")
    with torch.inference_mode():
        module = nn.Linear(3, 3)
    with torch.inference_mode(inside):
        fastload.load_into(module, tmp_path)
        other = nn.Linear(3, 3)
        fastload.load_into(other, tmp_path)
    for each in (module, other):
        assert_same(dict(each.state_dict()), {name: tensor.float() for name, tensor in content.items()})


def test_what_is_no_module_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(fastload.UsageError, match="int"):
        fastload.load_into(5, tmp_path)  # type: ignore[arg-type]


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


def test_of_what_strict_cannot_mend_the_hint_does_not_speak(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(fastload.UsageError, match="shape") as caught:
        fastload.load_into(torch.nn.Linear(2, 4), tmp_path, strict=False)
    assert "strict" not in caught.value.hint


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
