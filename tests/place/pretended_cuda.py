"""A CUDA device that does everything as late, or as early, as it may.

What runs on a stream is queued and carried out in an order that a random generator picks among those that streams and
events allow; device memory comes from a caching allocator that hands a freed block to the next one who asks, as torch's
does. Code that forgets to wait gets wrong bytes here, and with them a failing test, on a machine without a GPU.

There is a second device, on which nothing happens: to the driver the default stream is that of the device which is
current on the calling thread, and a call of the runtime makes a context there.

Only torch is replaced (streams, events, the current stream, copies, ``torch.empty`` on a device, ``cudart``), and the
library of CUDA's driver. Copies go by address, as a device's do: they neither keep memory alive nor notice that it has
another owner by now.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from fastload._address_space import map_anonymous
from fastload._place import cuda, landing, numa, stream_queue
from fastload._read.cuda_driver import CudaDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

DEVICE = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
_OUT_OF_MEMORY = 2
_NOT_READY = 600
_CONTEXT = 0xC0  # of the first device; that of the second follows


class Range(NamedTuple):
    """Bytes by address."""

    begin: int
    end: int

    def meets(self, other: Range) -> bool:
        return self.begin < other.end and other.begin < self.end


def range_of(tensor: torch.Tensor) -> Range:
    assert tensor.is_contiguous()
    return Range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)


def alias(place: Range, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """A tensor over these addresses that does not keep them alive."""
    return torch.frombuffer((ctypes.c_char * (place.end - place.begin)).from_address(place.begin), dtype=dtype)


def move(to: Range, of: Range) -> None:
    assert to.end - to.begin == of.end - of.begin
    ctypes.memmove(to.begin, of.begin, of.end - of.begin)


class Work(NamedTuple):
    """One thing on a stream: it may wait for another, then it runs."""

    run: Callable[[], object]
    touches: tuple[Range, ...]
    after: Point | None = None


class Point(NamedTuple):
    """How far a stream must have come."""

    stream: Stream
    number: int

    @property
    def is_reached(self) -> bool:
        return self.stream.done >= self.number


class Stream:
    """As ``torch.cuda.Stream``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.queue: deque[Work] = deque()
        self.done = 0
        self.cuda_stream = len(machine.streams)  # 0: the default stream
        machine.streams.append(self)

    @property
    def here(self) -> Point:
        return Point(self, self.done + len(self.queue))

    @property
    def may_go_on(self) -> bool:
        return bool(self.queue) and (self.queue[0].after is None or self.queue[0].after.is_reached)

    def submit(self, run: Callable[[], object], *touches: Range) -> None:
        self.queue.append(Work(run, touches))
        self.machine.run_a_little()

    def go_on(self) -> None:
        self.queue.popleft().run()
        self.done += 1

    def wait_event(self, event: Event) -> None:
        if event.point is not None:
            self.queue.append(Work(lambda: None, (), event.point))

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.machine)
        event.record(self)
        return event

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        self.machine.run_until(self.here)


class Event:
    """As ``torch.cuda.Event``; one that was never recorded is waited for by nobody."""

    def __init__(self, machine: Machine, *, enable_timing: bool = False) -> None:
        self.machine = machine
        self.point: Point | None = None
        machine.events.append(self)
        self.cuda_event = len(machine.events)
        self._is_timed = enable_timing
        self._passed_s: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self.machine.current
        if self._is_timed:  # the device stamps it when it gets there
            stream.queue.append(Work(self._stamp, ()))
        self.point = stream.here

    def _stamp(self) -> None:
        self._passed_s = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds; an error, as torch's, where one of them has not passed."""
        if self._passed_s is None or end._passed_s is None:
            raise RuntimeError("CUDA error: device not ready")
        return (end._passed_s - self._passed_s) * 1e3

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.machine.current).wait_event(self)

    def query(self) -> bool:
        return self.point is None or self.point.is_reached

    def synchronize(self) -> None:
        if self.point is not None:
            self.machine.run_until(self.point)


class NoHaste(random.Random):
    """Nothing runs before somebody waits for it."""

    def choice(self, options: Any) -> Any:
        return options[0]


class Block(NamedTuple):
    """Device memory that was freed, and what must have happened before others may have it."""

    place: Range
    after: tuple[Point, ...]


class Pool:
    """What was allocated while it was in use."""

    def __init__(self) -> None:
        self.begins: set[int] = set()

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.begins


class Machine(TorchFunctionMode):
    """The device, its streams, its memory, and torch's functions that lead to them."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._haste = rng.choice([0.0, 0.1, 1.0])
        self.streams: list[Stream] = []
        self.events: list[Event] = []
        self.default = Stream(self)
        self.current = self.default
        self._elsewhere = Stream(self)
        self._own = threading.local()
        self.strays: list[str] = []
        """Calls that would have made a context on the second device."""
        self.registered: dict[int, int] = {}
        self.register_answers: deque[int] = deque()
        self._last_error = 0
        self._free: dict[Stream, list[Block]] = {}
        self._used_by: dict[int, set[Stream]] = {}
        self._memory: list[memoryview] = []
        self.live_bytes = 0
        self._pools: dict[int, Pool] = {}
        self.plain: dict[int, memoryview] = {}
        self.plain_answers: deque[int] = deque()

    # Time.

    def reseed(self, seed: int) -> None:
        """Another order of things from here on."""
        self._rng.seed(seed)
        self._haste = self._rng.choice([0.0, 0.1, 1.0])

    def run_a_little(self) -> None:
        for _ in range(self._rng.choice([0, 0, 1, 5])):
            self._step()

    def run_until(self, point: Point) -> None:
        while not point.is_reached:
            assert self._step(), "streams that wait for one another"

    def _step(self) -> bool:
        """One thing on one stream; the caller's own stream mostly comes last, as if it had much to do."""
        ready = [stream for stream in self.streams if stream.may_go_on]
        hurried = [stream for stream in ready if stream is not self.default or self._rng.random() < self._haste]
        if ready:
            self._rng.choice(hurried or ready).go_on()
        return bool(ready)

    def run_all(self) -> None:
        for stream in self.streams:
            self.run_until(stream.here)

    def pending(self, place: Range) -> bool:
        """Whether something queued still touches ``place``."""
        return any(place.meets(t) for s in self.streams for work in s.queue for t in work.touches)

    # Devices.

    @property
    def device(self) -> int:
        """The one that is current on the calling thread."""
        number: int = getattr(self._own, "device", DEVICE.index)
        return number

    @device.setter
    def device(self, number: int) -> None:
        self._own.device = number

    @contextlib.contextmanager
    def on_device(self, device: torch.device | int) -> Iterator[None]:
        """As ``torch.cuda.device``."""
        before, self.device = self.device, device if isinstance(device, int) else device.index
        try:
            yield
        finally:
            self.device = before

    def set_device(self, device: torch.device | int) -> None:
        """As ``torch.cuda.set_device``."""
        self.device = device if isinstance(device, int) else device.index

    def cuDeviceGet(self, device: Any, ordinal: Any) -> int:  # noqa: N802 - as CUDA calls it
        device._obj.value = ordinal.value
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802 - as CUDA calls it
        context._obj.value = _CONTEXT + device.value
        return 0

    def cuCtxGetDevice(self, device: Any) -> int:  # noqa: N802 - as CUDA calls it
        device._obj.value = self.device
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802 - as CUDA calls it
        context._obj.value = _CONTEXT + self.device
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802 - as CUDA calls it
        self.device = context.value - _CONTEXT
        return 0

    def _find_stream(self, handle: int) -> Stream:
        is_elsewhere = not handle and self.device != DEVICE.index
        return self._elsewhere if is_elsewhere else self.streams[handle]

    def _use_runtime(self, name: str) -> None:
        if self.device != DEVICE.index:
            self.strays.append(name)

    # Memory.

    def allocate(self, nbytes: int) -> torch.Tensor:
        """The block of that size freed last on this stream, if its time has come; else a fresh one."""
        free = self._free.setdefault(self.current, [])
        fitting = [b for b in free if b.place.end - b.place.begin == nbytes and all(p.is_reached for p in b.after)]
        if fitting:
            free.remove(fitting[-1])
            place = fitting[-1].place
        else:
            self._memory.append(map_anonymous(nbytes + 256))
            address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory[-1]))
            begin = -(-address // 256) * 256
            place = Range(begin, begin + nbytes)
        owner = memoryview((ctypes.c_char * nbytes).from_address(place.begin)).cast("B")
        weakref.finalize(owner, self._release, place, self.current)
        self.live_bytes += nbytes
        pool = self._pools.get(threading.get_ident())
        if pool is not None:
            pool.begins.add(place.begin)
        return torch.frombuffer(owner, dtype=torch.uint8)

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """As ``torch.cuda.use_mem_pool`` of torch 2.13: of the current thread's allocations, not of others'."""
        self._pools[threading.get_ident()] = made = Pool()
        try:
            yield made
        finally:
            del self._pools[threading.get_ident()]

    def _release(self, place: Range, stream: Stream) -> None:
        after = tuple(user.here for user in self._used_by.pop(place.begin, ()))
        self._free[stream].append(Block(place, after))
        self.live_bytes -= place.end - place.begin

    # What torch calls.

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") == DEVICE:
            return self._empty(*args) if args[0] else torch.empty(0, dtype=kwargs["dtype"])
        if func is torch.as_tensor and kwargs.get("device") == DEVICE:
            return alias(Range(args[0].address, args[0].address + args[0].nbytes))
        if func is torch.Tensor.copy_:
            return self._copy(*args)
        if func is torch.Tensor.to and isinstance(args[1], torch.dtype):
            return self._cast(*args)
        return func(*args, **kwargs)

    def _empty(self, nbytes: int) -> torch.Tensor:
        tensor = self.allocate(nbytes)
        place = range_of(tensor)
        self.current.submit(lambda: alias(place).fill_(0xEE), place)  # what an earlier owner on this stream wrote late
        return tensor

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        to, of = range_of(target), range_of(source)
        self.current.submit(lambda: move(to, of), to, of)
        self._check_last_error()
        return target

    def _cast(self, source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if not source.nbytes:
            return torch.empty(source.shape, dtype=dtype)
        result = self.allocate(source.numel() * dtype.itemsize).view(dtype).view(source.shape)
        of, to, stored = range_of(source), range_of(result), source.dtype

        def cast() -> None:
            alias(to, dtype)[:] = alias(of, stored)

        self.current.submit(cast, of, to)
        return result

    def note_use(self, tensor: torch.Tensor, stream: Stream) -> None:
        """As ``Tensor.record_stream``."""
        self._used_by.setdefault(tensor.untyped_storage().data_ptr(), set()).add(stream)

    def _check_last_error(self) -> None:
        """A copy, once it is queued, reports the thread's last error, whoever caused it, and clears it."""
        error, self._last_error = self._last_error, 0
        if error:
            raise RuntimeError(f"CUDA error {error}")

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:  # noqa: N802 - as CUDA calls it
        assert flags == 1
        self._use_runtime("cudaHostRegister")
        code = self.register_answers.popleft() if self.register_answers else 0
        if code:
            self._last_error = code
        else:
            self.registered[address] = nbytes
        return code

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - as CUDA calls it
        self._use_runtime("cudaHostUnregister")
        nbytes = self.registered.pop(address)
        assert not self.pending(Range(address, address + nbytes)), "unpinned under a copy"
        return 0

    def answer(self, *_: Any) -> int:
        return 0

    cuInit = cuDeviceGetPCIBusId = answer  # noqa: N815 - as CUDA calls them

    def cuMemAlloc_v2(self, pointer: Any, nbytes: Any) -> int:  # noqa: N802 - as CUDA calls it
        code = self.plain_answers.popleft() if self.plain_answers else 0
        if not code:
            memory = map_anonymous(nbytes.value)
            pointer._obj.value = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            self.plain[pointer._obj.value] = memory
        return code

    def cuMemFree_v2(self, pointer: Any) -> int:  # noqa: N802 - as CUDA calls it
        memory = self.plain.pop(pointer.value)
        assert not self.pending(Range(pointer.value, pointer.value + len(memory))), "freed under a copy"
        return 0

    def copy_async(self, to: int, of: int, nbytes: int, stream: int) -> int:
        """By address, as the driver; the memory need not be anybody's by then."""
        target, source = Range(to, to + nbytes), Range(of, of + nbytes)
        self._find_stream(stream).submit(lambda: move(target, source), target, source)
        return 0

    cuMemcpyHtoDAsync_v2 = cuMemcpyDtoDAsync_v2 = cuMemcpyDtoHAsync_v2 = copy_async  # noqa: N815 - as CUDA calls them

    def cuEventRecord(self, event: int, stream: int) -> int:  # noqa: N802 - as CUDA calls it
        self.events[event - 1].record(self._find_stream(stream))
        return 0

    def cuEventQuery(self, event: int) -> int:  # noqa: N802 - as CUDA calls it
        return 0 if self.events[event - 1].query() else _NOT_READY

    def cuEventSynchronize(self, event: int) -> int:  # noqa: N802 - as CUDA calls it
        self.events[event - 1].synchronize()
        return 0

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> int:  # noqa: N802 - as CUDA calls it
        assert flags == 0
        self._find_stream(stream).wait_event(self.events[event - 1])
        return 0

    def refuse_to_pin(self, *answers: bool) -> None:
        """The next calls of cudaHostRegister: True is refused for want of memory."""
        self.register_answers.extend(_OUT_OF_MEMORY if refused else 0 for refused in answers)

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """As ``torch.cuda.stream``."""
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


@contextlib.contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> Iterator[Machine]:
    """``torch.cuda`` with one device, until the end of the block."""
    machine = Machine(rng)
    replacements: dict[str, Callable[..., object]] = {
        "Stream": lambda *_: Stream(machine),
        "Event": lambda enable_timing=False, **_: Event(machine, enable_timing=enable_timing),
        "current_stream": lambda *_: machine.current,
        "stream": machine.on,
        "device": machine.on_device,
        "set_device": machine.set_device,
        "cudart": lambda: machine,
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(torch.cuda, name, replacement)

    def record_stream(tensor: torch.Tensor, stream: Stream) -> None:
        machine.note_use(tensor, stream)

    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    for room in (cuda, landing, numa):
        monkeypatch.setattr(room, "load_driver", lambda: CudaDriver(machine))
    monkeypatch.setattr(stream_queue, "load_calls", lambda _: machine)
    with machine:
        yield machine
