"""What ranks do in the tests of group loading; each function runs on all of them at once."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist

import fastload
from fastload._budget import Headroom
from fastload._load.group.joining import joining_group
from fastload.options import Options
from kernel_account import read_so_far
from models import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload.report import Report

SMALL_WINDOW = Options(staging_bytes="16Mi")


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Dtype, shape and bytes of each, in short."""
    return {
        name: f"{t.dtype} {tuple(t.shape)} "
        + hashlib.sha256(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, t in tensors.items()
    }


def load(rank: int, path: str, **keywords: Any) -> tuple[dict[str, str], Report]:
    weights = fastload.load(path, group=dist.group.WORLD, **keywords)
    return fingerprints(weights), weights.report


def load_with(rank: int, path: str, keywords: dict[str, Any]) -> tuple[dict[str, str], Report]:
    return load(rank, path, **keywords)


def load_by_rank(rank: int, path: str, keywords: list[dict[str, Any]]) -> tuple[dict[str, str], Report]:
    """Other keywords on each rank."""
    return load(rank, path, **keywords[rank])


def fill_by_rank(rank: int, path: str, keywords: list[dict[str, Any]]) -> None:
    """Into a module that has nothing of the model's; where that is allowed."""
    fastload.load_into(torch.nn.Linear(1, 1), path, strict=False, group=dist.group.WORLD, **keywords[rank])


def fill_and_look(rank: int, path: str, sizes: dict[str, int]) -> dict[str, bytes] | None:
    """What is in a module that was zero, on a rank whose load was ended by another one; None: on that one."""
    module = torch.nn.Module()
    for name, size in sizes.items():
        above, _, below = name.partition(".")
        if not hasattr(module, above):
            module.add_module(above, torch.nn.Module())
        module.get_submodule(above).register_buffer(below, torch.zeros(size, dtype=torch.uint8))
    try:
        fastload.load_into(module, path, group=dist.group.WORLD)
    except fastload.GroupError:
        return {name: tensor.numpy().tobytes() for name, tensor in module.named_buffers()}
    except fastload.IntegrityError:
        return None
    raise AssertionError("the load should have failed")


def come_late(rank: int, path: str, late: int, after_s: float) -> None:
    """One rank keeps the others waiting."""
    if rank == late:
        time.sleep(after_s)
    load(rank, path)


def interrupt_before_meeting(rank: int, path: str, victim: int, late: int, after_s: float) -> None:
    """On one rank comes Ctrl-C before it has met the others, and one of these is late."""
    if rank == victim:
        time.sleep(0.5)
        with joining_group(dist.group.WORLD, lambda: None):
            raise KeyboardInterrupt
    come_late(rank, path, late, after_s)


def interrupt_unnoticed(rank: int, path: str, victim: int, late: int, after_s: float) -> None:
    """On one rank comes Ctrl-C while it waits for a late one, and another thread gets it: so it ends no waiting."""
    if rank == victim:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(1.0, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
    come_late(rank, path, late, after_s)


class Falling:
    """A path at whose first look, which is after the call and before the load, the process gets a signal."""

    def __init__(self, path: str, number: int) -> None:
        self._path = path
        self._number = number

    def __fspath__(self) -> str:
        time.sleep(1.0)
        os.kill(os.getpid(), self._number)
        return self._path


def fall(rank: int, path: str, victim: int | None, number: int, late: int, after_s: float) -> None:
    """One rank gets a signal when it has called, and before it is known what it wants to load; another one is late."""
    if rank == victim:
        fastload.load(Falling(path, number), group=dist.group.WORLD)
    else:
        come_late(rank, path, late, after_s)


def come_late_and_wrong(rank: int, path: str, wrong: int, late: int, after_s: float) -> None:
    """One has a wrong keyword; another is late."""
    if rank == wrong:
        load(rank, path, reader="none")
    come_late(rank, path, late, after_s)


def fill_tied_on(rank: int, path: str, victim: int) -> None:
    """On one rank the module's parameters are tied, though the model's are not alike."""
    module = torch.nn.Module()
    for name in ("first", "second"):
        module.register_parameter(name, torch.nn.Parameter(torch.zeros(4 * MIB, dtype=torch.bfloat16)))
    if rank == victim:
        module.second = module.first
    fastload.load_into(module, path, group=dist.group.WORLD)


def load_from_broken_storage(rank: int, path: str, victim: int) -> None:
    """On one rank reads of weights fail, as those of a dying disk; headers came before."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        if rank == victim:
            patch.setattr(os, "preadv", fail)
        load(rank, path)


def load_from_slow_storage(rank: int, path: str, victim: int, keywords: dict[str, Any]) -> Report:
    """On one rank the first read of weights takes long: those after it wait for their turn to be sent."""
    read, begun = os.preadv, []

    def read_slowly(descriptor: int, buffers: list[memoryview], *more: int) -> int:
        if sum(map(len, buffers)) >= MIB:
            begun.append(more)
            time.sleep(1.0 if len(begun) == 1 else 0.0)
        return read(descriptor, buffers, *more)

    with pytest.MonkeyPatch.context() as patch:
        if rank == victim:
            patch.setattr(os, "preadv", read_slowly)
        return load(rank, path, **keywords)[1]


def load_without_memory(rank: int, path: str, victim: int) -> None:
    """On one rank the system refuses the memory."""
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if rank == victim:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (32 << 20), unlimited[1]))
        load(rank, path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


def load_with_memory(rank: int, path: str, available_bytes: int, keeper: int | None) -> dict[str, str]:
    """On a machine with so much memory; only ``keeper`` keeps anything, if that is said."""
    headroom = Headroom("the machine's RAM", available_bytes, "RAM")
    shard = None if keeper in {None, rank} else _keep_nothing
    with pytest.MonkeyPatch.context() as patch:
        for module in ("prepare.found", "target.host_target", "target.mapped_target", "target.cuda_target"):
            patch.setattr(f"fastload._load.{module}.host_headroom", lambda: headroom)
        return load(rank, path, options=SMALL_WINDOW, shard=shard)[0]


def load_with_other_code(rank: int, path: str, victim: int, place: str, value: object) -> None:
    """As if another version of fastload were there on one rank."""
    with pytest.MonkeyPatch.context() as patch:
        if rank == victim:
            patch.setattr(place, value)
        load(rank, path)


def want_slowly(name: str) -> bool:
    """A predicate that thinks for longer than others have time."""
    time.sleep(0.3)
    return True


def stream_and_watch(rank: int, path: str) -> tuple[Report, int]:
    """What it did; and how many bytes this process has read from files meanwhile, by the kernel's account.

    Every second rank goes past the page cache.
    """
    keywords: dict[str, Any] = {"reader": "direct" if rank % 2 else "buffered", "options": SMALL_WINDOW}
    fastload.load(path, group=dist.group.WORLD, **keywords)  # what is imported for it is read from files, too
    before = read_so_far()
    tensors = fastload.stream(path, group=dist.group.WORLD, **keywords)
    for _ in tensors:
        pass
    return tensors.report, read_so_far() - before


def load_in_pairs(rank: int, names: list[str], paths: list[str], settings: dict[str, Any]) -> dict[str, str]:
    """In groups of two, which are called so on each rank, and have their place in the store by that name.

    They were split off a group that was split off itself.
    """
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store, _world

    pair = dist.ProcessGroup(
        PrefixStore(f"{names[rank]}/", PrefixStore(f"{names[rank]}/", _get_default_store())), rank % 2, 2
    )
    _world.pg_group_ranks[pair] = {each: each % 2 for each in range(dist.get_world_size()) if each // 2 == rank // 2}
    return fingerprints(fastload.load(paths[rank // 2], group=pair, **settings))


def load_two_at_once(rank: int, paths: list[str], lead_s: float) -> list[dict[str, str]]:
    """Two groups of all ranks load a model each, from a thread each; every second rank begins with the other one."""
    groups: list[Any] = [dist.new_group(list(range(dist.get_world_size()))) for _ in paths]
    turns = [(number + rank) % len(paths) for number in range(len(paths))]

    def load_in(number: int) -> dict[str, str]:
        time.sleep(lead_s * turns.index(number))
        return fingerprints(fastload.load(paths[number], group=groups[number], options=Options(deadline="20")))

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(load_in, range(len(paths))))


def load_in_group(rank: int, path: str, ranks: list[int]) -> dict[str, str]:
    """In one that was made before."""
    return fingerprints(fastload.load(path, group=_groups[tuple(ranks)]))


def load_two_of_one_group(rank: int, paths: list[list[str]], late: int, after_s: float) -> list[dict[str, str]]:
    """One group, two threads; each rank has paths of its own, in that order, and one comes later than the others."""
    fastload.load.__name__  # noqa: B018 - it is imported when it is looked at, by whichever thread comes first
    if rank == late:
        time.sleep(after_s)

    def load_in(number: int) -> dict[str, str]:
        while number and not any(each.name == "fastload-rendezvous" for each in threading.enumerate()) and not done:
            time.sleep(0.001)
        try:
            return load(rank, paths[rank][number], options=Options(deadline="20"))[0]
        finally:
            done.append(number)

    done: list[int] = []
    with ThreadPoolExecutor(len(paths[rank])) as pool:
        return list(pool.map(load_in, range(len(paths[rank]))))


class Mute(dist.ProcessGroup):
    """Of a backend that is no part of torch, is not for these tensors' device, or can do nothing at all just now."""


def _make_mute(store: object, rank: int, size: int, timeout: object) -> Mute:
    make: Any = Mute  # its stubs do not know this form
    made: Mute = make(rank, size)
    return made


def load_in_a_group_that_can_do_nothing(rank: int, path: str) -> dict[str, str]:
    """Of another backend than gloo: no collective of it works."""
    dist.Backend.register_backend("mute", _make_mute, devices=["cpu"])
    group: Any = dist.new_group(backend="mute")
    assert isinstance(group, Mute)
    with pytest.raises(RuntimeError):
        dist.all_reduce(torch.zeros(1), group=group)
    return fingerprints(fastload.load(path, group=group, options=Options(deadline="20")))


def load_in_an_nccl_group(rank: int, path: str) -> tuple[dict[str, str], Report]:
    """Onto one device for all of them."""
    torch.cuda.set_device(0)
    group: Any = dist.new_group(backend="nccl")
    weights = fastload.load(path, device="cuda", group=group, options=Options(deadline="60"))
    return fingerprints({name: tensor.cpu() for name, tensor in weights.items()}), weights.report


def load_by_a_file(rank: int, path: str, file: str) -> dict[str, str]:
    """In a group that was made by hand, and meets by a file."""
    from torch._C._distributed_c10d import FileStore

    make: Any = dist.ProcessGroup  # its stubs do not know this form
    group = make(FileStore(file, dist.get_world_size()), rank, dist.get_world_size())
    return fingerprints(fastload.load(path, group=group, options=Options(deadline="20")))


def load_in_a_group_without_a_store(rank: int, path: str) -> None:
    make: Any = dist.ProcessGroup  # its stubs do not know this form
    fastload.load(path, group=make(rank, dist.get_world_size()))


def stream_by_rank(rank: int, path: str, keywords: list[dict[str, Any]]) -> None:
    """Other keywords on each rank."""
    dict(fastload.stream(path, group=dist.group.WORLD, **keywords[rank]))


def stream(rank: int, path: str, keywords: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    got = dict(fastload.stream(path, group=dist.group.WORLD, **keywords))
    return list(got), fingerprints(got)


def stream_unevenly(rank: int, path: str) -> dict[str, str]:
    """Each rank pauses at other tensors."""
    got = {}
    for number, (name, tensor) in enumerate(fastload.stream(path, group=dist.group.WORLD, options=SMALL_WINDOW)):
        if number % dist.get_world_size() == rank:
            time.sleep(0.05 * rank)
        got[name] = tensor
    return fingerprints(got)


def stream_and_leave(rank: int, path: str, leaver: int, after: int) -> dict[str, str]:
    """One rank closes its stream early."""
    return _leave(rank, path, {"options": SMALL_WINDOW}, leaver, after)


def stream_by_rank_and_leave(
    rank: int, path: str, keywords: list[dict[str, Any]], leaver: int, after: int
) -> dict[str, str]:
    """As above, with other keywords on each rank."""
    return _leave(rank, path, keywords[rank], leaver, after)


def _leave(rank: int, path: str, keywords: dict[str, Any], leaver: int, after: int) -> dict[str, str]:
    got = {}
    with fastload.stream(path, group=dist.group.WORLD, **keywords) as tensors:
        for number, (name, tensor) in enumerate(tensors):
            if rank == leaver and number == after:
                break
            got[name] = tensor
    return fingerprints(got)


def stream_and_exit(rank: int, path: str, leaver: int, after: int) -> dict[str, str]:
    """One rank closes its stream early, and its process ends at once."""
    got = stream_and_leave(rank, path, leaver, after)
    if rank == leaver:
        os._exit(0)
    return got


def stream_and_signal(rank: int, path: str, victim: int, number: int) -> float:
    """One rank is killed or stopped in the midst of it; the others say after how long they noticed."""
    since_s = time.monotonic()
    try:
        for position, _ in enumerate(fastload.stream(path, group=dist.group.WORLD, options=SMALL_WINDOW)):
            if rank == victim and position == 2:
                os.kill(os.getpid(), number)
            since_s = time.monotonic()
    except fastload.GroupError as error:
        error.add_note(f"{time.monotonic() - since_s}")
        raise
    return 0.0


def survive(rank: int, ranks: list[int]) -> float:
    """What the caller's own groups still do, after one of the ranks has failed."""
    return reduce_over(rank, ranks)


def make_group(rank: int, ranks: list[int]) -> None:
    """Keeps a group of some of the ranks, as a caller would have made it before."""
    _groups[tuple(ranks)] = dist.new_group(ranks)


_groups: dict[tuple[int, ...], Any] = {}


def reduce_over(rank: int, ranks: list[int]) -> float:
    total = torch.tensor([float(rank)])
    if rank in ranks:
        dist.all_reduce(total, group=_groups.get(tuple(ranks)))
    return float(total)


def fail_while_streaming(rank: int, path: str, victim: int) -> None:
    """One rank's caller stops with an error of its own in ``next``: its callback raises."""

    def progress(done: int, total: int) -> None:
        if rank == victim and done:
            raise RuntimeError("no more")

    fastload.load(path, group=dist.group.WORLD, progress=progress)


def load_path_of_rank(rank: int, paths: list[str]) -> None:
    """Each rank loads from a path of its own."""
    load(rank, paths[rank])


def load_sharded(rank: int, path: str, plan: dict[str, Any]) -> tuple[dict[str, str], Report, dict[str, Any]]:
    """With placements; also what moved."""
    weights = fastload.load(path, group=dist.group.WORLD, shard=plan)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    return fingerprints(weights), weights.report, shapes


def load_own_layers(rank: int, path: str) -> tuple[list[str], Report]:
    """As in pipeline or expert parallelism: each rank keeps other tensors, and nobody the last one."""
    weights = fastload.load(path, group=dist.group.WORLD, shard=lambda name: _keeps(name, rank))
    return list(weights), weights.report


def stream_own_tensor(rank: int, path: str, names: list[str], staging_bytes: int) -> dict[str, str]:
    """Each keeps one tensor, which is larger than its window, and reads a part of those of the others too."""
    options = fastload.Options(staging_bytes=staging_bytes, deadline=30)
    own = fastload.stream(path, group=dist.group.WORLD, shard=lambda name: name == names[rank], options=options)
    return fingerprints(dict(own))


def keep_nothing_on(rank: int, path: str, idle: int, verb: str) -> tuple[dict[str, str], Report]:
    """One rank wants no tensor at all; it reads for the others."""
    shard = None if rank != idle else _keep_nothing
    if verb == "load":
        return load(rank, path, shard=shard)
    tensors = fastload.stream(path, group=dist.group.WORLD, shard=shard, options=SMALL_WINDOW)
    return fingerprints(dict(tensors)), tensors.report


def _keep_nothing(name: str) -> bool:
    return False


def _keeps(name: str, rank: int) -> bool:
    number = int(name.split(".")[1])
    return number % (dist.get_world_size() + 1) == rank


def fill_sharded_module(rank: int, path: str, shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, str], int]:
    """A module of DTensors, by rows, by columns, whole; what is in it afterwards, put together again."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    module = torch.nn.Module()
    for number, (name, shape) in enumerate(shapes.items()):
        placement = [Shard(0), Shard(1), Replicate()][number % 3]
        tensor = distribute_tensor(torch.zeros(shape, dtype=torch.bfloat16), mesh, [placement])
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    report = fastload.load_into(module, path, group=dist.group.WORLD)
    whole = {name: _whole(parameter) for name, parameter in module.named_parameters()}
    return fingerprints(whole), report.bytes_read


def fill_module_with_a_mesh_of_two(rank: int, path: str, shape: tuple[int, ...]) -> dict[str, str]:
    """Rows over one dimension of the mesh, columns over the other."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    module = torch.nn.Module()
    tensor = distribute_tensor(torch.zeros(shape, dtype=torch.bfloat16), mesh, [Shard(0), Shard(1)])
    module.register_parameter("weight", torch.nn.Parameter(tensor, requires_grad=False))
    fastload.load_into(module, path, group=dist.group.WORLD)
    return fingerprints({"weight": _whole(module.weight)})


def fill_dealt_in_turns(rank: int, path: str, whole: Mapping[str, torch.Tensor], turns: int) -> tuple[bool, int]:
    """Strided over one dimension of the mesh, plain over the other; whether all is as torch itself deals it out."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard

    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    module = torch.nn.Module()
    expected = {}
    for number, (name, tensor) in enumerate(whole.items()):
        dim = number % 2
        placements = [_StridedShard(dim, split_factor=turns), Replicate() if number == 2 else Shard(dim)]
        # Without a source: torch scatters only what divides evenly.
        expected[name] = distribute_tensor(tensor, mesh, placements, src_data_rank=None).to_local()
        empty = distribute_tensor(torch.zeros_like(tensor), mesh, placements, src_data_rank=None)
        module.register_parameter(name, torch.nn.Parameter(empty, requires_grad=False))
    report = fastload.load_into(module, path, group=dist.group.WORLD)
    found = {name: _local(parameter) for name, parameter in module.named_parameters()}
    return fingerprints(found) == fingerprints(expected), report.group.ranks[0].bytes_received if report.group else 0


def fill_fsdp_over_tensor_parallel(
    rank: int, path: str, whole: torch.Tensor, parallel: int
) -> tuple[dict[str, str], dict[str, str], int]:
    """A linear layer by rows over ``parallel`` ranks, and by FSDP over the rest; what is in it, and should be."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (dist.get_world_size() // parallel, parallel), mesh_dim_names=("data", "tensor"))
    module = torch.nn.Linear(whole.shape[1], whole.shape[0], bias=False, dtype=whole.dtype)
    parallelize_module(module, mesh["tensor"], ColwiseParallel())
    fully_shard(module, mesh=mesh["data"])
    fastload.load_into(module, path, group=dist.group.WORLD)
    expected = whole
    for parts, number in ((parallel, rank % parallel), (dist.get_world_size() // parallel, rank // parallel)):
        chunks = expected.chunk(parts)
        expected = chunks[number] if number < len(chunks) else expected[:0]
    return fingerprints({"weight": _local(module.weight)}), fingerprints({"weight": expected}), len(expected)


def _local(parameter: Any) -> torch.Tensor:
    local: torch.Tensor = parameter.to_local()
    return local


def _whole(parameter: Any) -> torch.Tensor:
    whole: torch.Tensor = parameter.full_tensor()
    return whole


def load_with_few_files(rank: int, path: str, victim: int, more: int) -> None:
    """One rank may open only so many more descriptors."""
    fastload.load.__name__  # noqa: B018 - it is imported when it is looked at, which takes descriptors
    unlimited = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
    fillers: list[int] = []
    try:
        if rank == victim:
            while not fillers or fillers[-1] < highest:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, unlimited[1]))
        load(rank, path, options=Options(deadline="20"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, unlimited)
        for each in fillers:
            os.close(each)


def load_without_threads(rank: int, path: str, victim: int) -> None:
    """On one rank there is no memory for a thread from the start."""
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if rank == victim:
            resource.setrlimit(resource.RLIMIT_AS, (0, unlimited[1]))
        load(rank, path, options=Options(deadline="20"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


def come_wrong_or_not(rank: int, path: str, wrong: int, options: Options) -> None:
    """One rank comes, with a wrong keyword; the others never do."""
    if rank == wrong:
        load(rank, path, reader="none", options=options)
