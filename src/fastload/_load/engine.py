"""The three ways to load, on requests that are already parsed. Whoever imports this has torch."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import Clock
from fastload._load.prepare.found import Call, check_cast, finding
from fastload._load.prepare.prepare import prepare
from fastload._load.prepare.prove_first import prove_first
from fastload._load.request.device import parse_device
from fastload._load.retry.once_more import once_more
from fastload._load.stream.fill import fill
from fastload._load.stream.stream import Weights
from fastload._load.target import parameters
from fastload._load.target.choose import choose_target
from fastload._load.target.cuda_early import pinning_early, start_compiling
from fastload._load.target.cuda_target import CudaTarget
from fastload._load.target.keeping import Keeping
from fastload._load.target.module import choose_module_target
from fastload._load.target.staging import cut_window
from fastload._place.tensors import parse_cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from fastload._load.prepare.found import Found
    from fastload._load.request.request import Request
    from fastload._load.stream.stream import Stream
    from fastload._load.target.target import Target
    from fastload._place.pinned_ring import PinnedRing
    from fastload.report import Report


def load(request: Request, device: torch.device | str) -> Weights:
    """See :func:`fastload.load`."""
    weights, before = once_more(request, partial(_load, device=device))
    weights.report = before.add_to(weights.report)
    return weights


def _load(request: Request, device: torch.device | str) -> Weights:
    with _open(request, device, "load") as stream:
        weights = Weights(stream)
    weights.report = stream.report
    return weights


def stream(request: Request, device: torch.device | str) -> Stream:
    """See :func:`fastload.stream`."""
    return _open(request, device, "stream")


def discard(request: Request, device: str, begin: Callable[[Stream], Callable[[torch.Tensor], object]]) -> Report:
    """See :func:`fastload._load.api.discard`."""
    report, before = once_more(request, partial(_discard, device=device, begin=begin))
    return before.add_to(report)


def _discard(request: Request, device: str, begin: Callable[[Stream], Callable[[torch.Tensor], object]]) -> Report:
    with _open(request, device, "stream") as stream:
        show = begin(stream)
        for _, tensor in stream:
            show(tensor)
    return stream.report


def load_into(request: Request, module: torch.nn.Module, *, strict: bool) -> Report:
    """See :func:`fastload.load_into`."""
    report, before = once_more(request, partial(_load_into, module=module, strict=strict))
    return before.add_to(report)


def _load_into(request: Request, module: torch.nn.Module, *, strict: bool) -> Report:
    clock = Clock()
    _hold_to_deadline(request)
    dtype = None if request.dtype is None else parse_cast(request.dtype)
    own = parameters.own_tensors(module)
    device = parameters.main_device(own.values())
    call = Call("load_into", device.type, partial(start_compiling, device), parameters.find_sharded(module))
    with _pinning(device, request) as ring, finding(request, clock, call) as found:
        own = {name: tensor for name, tensor in own.items() if found.wanted(name)}
        if parameters.match(own, found.shaped, strict=strict, dtype=dtype) or dtype is not None:
            check_cast(found, request.source.subfolder)
        wanted = found.only(own)
        maps = request.settings.reader == "mmap"
        destinations = parameters.assign(own, wanted.shaped, maps=maps, cut=wanted.cuts)
        keeping = Keeping(keeps_all=False, window_bytes=_window_bytes(request, found), cast=None, cuts=wanted.cuts)
        target = choose_module_target(destinations, keeping, request.settings, wanted.fetched)
        _hand_over(ring, target)
        stream = prepare(request, wanted, target, destinations.device, clock)
    return fill(stream, destinations)


def _window_bytes(request: Request, found: Found) -> int:
    return cut_window(request.settings.staging_bytes, found.headroom)


def _open(request: Request, device: torch.device | str, verb: str) -> Stream:
    clock = Clock()
    _hold_to_deadline(request)
    parsed = parse_device(device)
    cast = None if request.dtype is None else parse_cast(request.dtype)
    keeps_all = verb == "load"
    call = Call(verb, parsed.type, partial(start_compiling, parsed))
    with _pinning(parsed, request) as ring, finding(request, clock, call) as found:
        if cast is not None:
            check_cast(found, request.source.subfolder)
        must_be_first = not keeps_all and request.settings.verify == "require"
        certain = prove_first(found, request.deadline) if must_be_first else found
        window_bytes, above = _window_bytes(request, found), request.host_above_bytes
        keeping = Keeping(keeps_all, window_bytes, cast, cuts=found.cuts, host_above_bytes=above)
        target = choose_target(parsed, keeping, request.settings, certain.fetched)
        _hand_over(ring, target)
        return prepare(request, certain, target, parsed, clock)


def _hold_to_deadline(request: Request) -> None:
    if request.group is not None:
        request.group.shorten(request.deadline.left_s)


@contextmanager
def _pinning(device: torch.device, request: Request) -> Iterator[PinnedRing | None]:
    """See :func:`~fastload._load.target.cuda_early.pinning_early`. A group that has met knows what slots it needs."""
    if request.group is not None:
        yield None
        return
    with pinning_early(device, request.settings.staging_bytes) as ring:
        yield ring


def _hand_over(ring: PinnedRing | None, target: Target) -> None:
    if isinstance(target, CudaTarget):
        target.ring = ring
