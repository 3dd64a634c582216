"""``fastload.load`` against safetensors' own reader, on real weights and on every dtype."""

from __future__ import annotations

import copy
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fastload
from models import MIB, assert_same, random_tensor, same_bytes, save_large, save_sharded
from writing import pack

READERS = ("auto", "direct", "buffered", "mmap")

pytestmark = pytest.mark.usefixtures("leaks_nothing")


@pytest.mark.parametrize("reader", READERS)
def test_real_weights_are_loaded_exactly(real_model: Path, reader: str) -> None:
    weights = fastload.load(real_model, reader=reader)
    assert_same(weights, load_file(real_model / "model.safetensors"))
    assert reader in ("auto", weights.report.reader)


@pytest.mark.parametrize("reader", READERS)
def test_real_weights_are_streamed_exactly(real_model: Path, reader: str) -> None:
    with fastload.stream(real_model, reader=reader) as stream:
        assert_same(dict(stream), load_file(real_model / "model.safetensors"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("pad", range(8))
def test_misaligned_data_is_loaded_exactly(tmp_path: Path, reader: str, pad: int) -> None:
    """A header of any length is valid, so data may begin at any address."""
    tensors = {
        "n" * (pad + 1): random_tensor(8 * 300_001, 1, torch.float64),
        "byte": random_tensor(3, 2, torch.uint8),
        "half": random_tensor(2 * 700_001, 3, torch.float16),
        "complex": random_tensor(8 * 17, 4, torch.complex64),
    }
    spelling = {torch.float64: "F64", torch.uint8: "U8", torch.float16: "F16", torch.complex64: "C64"}
    packed = {n: (spelling[t.dtype], list(t.shape), bytes(t.view(torch.uint8).tolist())) for n, t in tensors.items()}
    (tmp_path / "model.safetensors").write_bytes(pack(packed))
    weights = fastload.load(tmp_path, reader=reader)
    assert_same(weights, tensors)
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in weights.values())


def test_sharded_with_index(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00003.safetensors": {f"t{i}": random_tensor(5 * MIB, i)} for i in (1, 2, 3)}
    save_sharded(tmp_path, shards)
    save_file({"t1": torch.zeros(3)}, tmp_path / "consolidated.safetensors")
    weights = fastload.load(tmp_path)
    assert_same(weights, {n: t for tensors in shards.values() for n, t in tensors.items()})
    assert list(weights) == ["t1", "t2", "t3"]


def test_sharded_without_index_and_by_the_path_of_the_index(tmp_path: Path) -> None:
    shards = {f"part{i}.safetensors": {f"t{i}": random_tensor(100, i)} for i in (1, 2)}
    save_sharded(tmp_path, shards, index=False)
    assert list(fastload.load(tmp_path)) == ["t1", "t2"]
    save_sharded(tmp_path, shards)
    assert list(fastload.load(tmp_path / "model.safetensors.index.json")) == ["t1", "t2"]


def test_subfolder_and_variant(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    save_file({"full": torch.ones(2)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({"half": torch.ones(2)}, tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert list(fastload.load(tmp_path, subfolder="unet")) == ["full"]
    assert list(fastload.load(tmp_path, subfolder="unet", variant="fp16")) == ["half"]


def test_file_without_tensors_is_an_empty_dict(tmp_path: Path) -> None:
    save_file({}, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path)
    assert weights == {}
    assert weights.report.bytes == 0
    assert weights.report.reader == "none"


def test_empty_and_scalar_tensors(tmp_path: Path) -> None:
    content = {
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "also none": torch.empty(3, 0, dtype=torch.int64),
    }
    save_file(content, tmp_path / "model.safetensors")
    assert_same(fastload.load(tmp_path), content)


@pytest.mark.parametrize("tensors", ["layer.003.*", ["layer.003.weight"], lambda name: "003" in name])
def test_what_is_not_wanted_is_not_read(tmp_path: Path, tensors: object) -> None:
    content = save_large(tmp_path)
    weights = fastload.load(tmp_path, tensors=tensors, reader="buffered")  # type: ignore[arg-type] # a union
    assert_same(weights, {"layer.003.weight": content["layer.003.weight"]})
    assert weights.report.bytes_read < 3 * 4 * MIB


def test_shards_of_which_nothing_is_wanted_are_not_opened_again(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": {f"t{i}": random_tensor(MIB, i)} for i in (1, 2)}
    save_sharded(tmp_path, shards)
    weights = fastload.load(tmp_path, tensors="t1")
    assert weights.report.bytes_read < 2 * MIB


def test_glob_without_a_match_names_the_nearest(tmp_path: Path) -> None:
    save_large(tmp_path, 2, 64)
    with pytest.raises(fastload.UsageError, match=r"'layer\.000\.weight'"):
        fastload.load(tmp_path, tensors="layer.0.weight")


def test_report_is_true_and_json(tmp_path: Path) -> None:
    content = save_large(tmp_path)
    report = fastload.load(tmp_path, reader="buffered").report
    size = os.path.getsize(tmp_path / "model.safetensors")
    assert report.bytes == sum(t.nbytes for t in content.values())
    assert size <= report.bytes_read <= size + 4096
    assert report.tensors == len(content)
    assert sum(report.stages.values()) == pytest.approx(report.seconds)
    assert list(report.stages) == ["resolve", "plan", "stream", "publish", "finish"]
    assert list(report.busy_s) == ["read", "hash", "copy", "write", "wait"]
    assert report.busy_s["read"] > 0
    assert (report.tier, report.commit, report.evidence) == ("path", None, "none")
    longest = max(report.stages, key=lambda stage: report.stages[stage])
    assert report.bound_by in ({"read", "copy", "caller"} if longest == "stream" else {longest})
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["schema"] == 1


def test_reader_differs_by_shard_and_the_report_says_so(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": {f"t{i}": random_tensor(8 * MIB, i)} for i in (1, 2)}
    save_sharded(tmp_path, shards)
    cold, warm = sorted(tmp_path.glob("*.safetensors"))
    descriptor = os.open(cold, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    warm.read_bytes()
    report = fastload.load(tmp_path).report
    if report.reader == "buffered":
        pytest.skip(f"no O_DIRECT where the tests run: {report.reader_reason}")
    assert report.reader == "buffered+direct"
    assert "page cache" in report.reader_reason


def test_tensors_behave_like_any_others(tmp_path: Path) -> None:
    content = save_large(tmp_path, 4, 4 * MIB)
    content["small"] = torch.arange(10)
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path)
    torch.save(weights["small"], tmp_path / "saved.pt")
    assert (tmp_path / "saved.pt").stat().st_size < 10_000
    torch.save(weights, tmp_path / "all.pt")
    assert_same(torch.load(tmp_path / "all.pt", weights_only=True), content)
    weights["layer.000.weight"].zero_()
    weights["small"].resize_(0)
    with pytest.raises(RuntimeError, match="not resizable"):  # torch's own answer for memory that it did not allocate
        weights["small"].resize_(1000)
    assert same_bytes(copy.deepcopy(weights["layer.002.weight"]), content["layer.002.weight"])
    assert same_bytes(weights["layer.001.weight"], content["layer.001.weight"])
    assert same_bytes(fastload.load(tmp_path)["layer.000.weight"], content["layer.000.weight"])


def test_mapped_tensors_are_private(tmp_path: Path) -> None:
    content = save_large(tmp_path, 2, MIB)
    fastload.load(tmp_path, reader="mmap")["layer.000.weight"].zero_()
    assert_same(load_file(tmp_path / "model.safetensors"), content)


def test_paths_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_large(tmp_path, 1, 64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for model in (tmp_path, str(tmp_path), "./", "model.safetensors", Path("model.safetensors"), "~"):
        assert list(fastload.load(model)) == ["layer.000.weight"]


def test_bare_name_of_a_folder_shows_both_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fastload.UsageError, match=r"'llama'.*'\./llama'"):
        fastload.load("llama")


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("tpu9", fastload.UsageError),
        ("meta", fastload.UnsupportedError),
        (3.5, fastload.UsageError),
        ("cuda:99", (fastload.UsageError, fastload.UnsupportedError)),
    ],
)
def test_devices_that_are_not_there(tmp_path: Path, device: str, error: type[Exception]) -> None:
    save_large(tmp_path, 1, 64)
    with pytest.raises(error):
        fastload.load(tmp_path, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize(
    ("built_for", "says", "advises"),
    [(None, "without CUDA", "Install a CUDA build"), ("13.2", "sees no device", "Check nvidia-smi")],
)
def test_the_cure_for_no_device_is_that_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_for: str | None, says: str, advises: str
) -> None:
    """Who has a CUDA build was told to install one."""
    monkeypatch.setattr(torch.version, "cuda", built_for)
    save_large(tmp_path, 1, 64)
    with pytest.raises(fastload.UnsupportedError, match=says) as caught:
        fastload.load(tmp_path, device="cuda")
    assert caught.value.hint.startswith(advises)


def test_unknown_reader_and_path(tmp_path: Path) -> None:
    with pytest.raises(fastload.UsageError, match="auto, gds, direct, buffered, mmap"):
        fastload.load(tmp_path, reader="fast")
    with pytest.raises(fastload.ModelNotFoundError):
        fastload.load(tmp_path / "nothing")
    with pytest.raises(fastload.ModelNotFoundError, match="org/name"):
        fastload.load("org/name", options=fastload.Options(tiers="local"))
    with pytest.raises(fastload.ModelNotFoundError):
        fastload.load("a-bare-name")  # no hub is asked for it


def test_direct_where_the_file_system_has_none() -> None:
    with Path("/proc/self/mountinfo").open() as mounts:
        if not any("/dev/shm" in line for line in mounts):
            pytest.skip("no /dev/shm here")
    path = Path("/dev/shm") / f"fastload-test-{os.getpid()}.safetensors"
    try:
        save_file({"a": torch.arange(4)}, path)
        assert fastload.load(path).report.reader == "buffered"
    finally:
        path.unlink()


def _torch_module() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    "keywords",
    [
        {"subfolder": 5},
        {"subfolder": b"unet"},
        {"variant": 5},
        {"revision": 5},
        {"tensors": 5},
        {"tensors": [5]},
        {"progress": 1},
        {"progress": "yes"},
        {"options": {"reader": "direct"}},
        {"verify": 5},
        {"reader": 5},
        {"dtype": 5},
    ],
    ids=str,
)
def test_arguments_of_the_wrong_type(tmp_path: Path, keywords: dict[str, object]) -> None:
    save_large(tmp_path, 1, 64)
    name = next(iter(keywords))
    for act in (
        lambda: fastload.load(tmp_path, **keywords),  # type: ignore[arg-type] # on purpose
        lambda: fastload.stream(tmp_path, **keywords),  # type: ignore[arg-type]
        lambda: fastload.load_into(_torch_module(), tmp_path, **keywords),  # type: ignore[arg-type]
    ):
        with pytest.raises(fastload.UsageError, match=name):
            act()


def test_subfolder_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    save_large(tmp_path / "unet", 1, 64)
    assert list(fastload.load(tmp_path, subfolder=Path("unet"))) == ["layer.000.weight"]
    assert list(fastload.inspect(tmp_path, subfolder=Path("unet")).tensors) == ["layer.000.weight"]


def test_predicate_is_asked_once_per_name(tmp_path: Path) -> None:
    content = save_large(tmp_path, 4, 64)
    asked: list[str] = []

    def once(name: str) -> bool:
        asked.append(name)
        return asked.count(name) == 1

    assert_same(fastload.load(tmp_path, tensors=once), content)
    assert sorted(asked) == sorted(content)


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_system_that_grants_few_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: int) -> None:
    """So many at once, besides the caller's own."""
    content = save_large(tmp_path)
    start, started = threading.Thread.start, list[threading.Thread]()

    def refuse(thread: threading.Thread) -> None:
        if sum(each.is_alive() for each in started) >= granted:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if granted:
        assert_same(fastload.load(tmp_path, reader="buffered"), content)
    else:
        with pytest.raises(fastload.UnsupportedError, match=r"no thread.*ulimit -u"):
            fastload.load(tmp_path, reader="buffered")


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62]], ids=str)
def test_empty_tensor_that_torch_cannot_hold(tmp_path: Path, shape: list[int]) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({"void": ("F32", shape, b""), "a": ("U8", [1], b"x")}))
    with pytest.raises(fastload.UnsupportedError, match="'void'"):
        fastload.load(tmp_path)
    assert list(fastload.load(tmp_path, tensors="a")) == ["a"]


def test_callers_default_device_does_not_matter(tmp_path: Path) -> None:
    content = {"none": torch.empty(0, 4), "some": torch.ones(3)}
    save_file(content, tmp_path / "model.safetensors")
    with torch.device("meta"):
        weights = fastload.load(tmp_path, dtype="F32")
    assert_same(weights, content)
