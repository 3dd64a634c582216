"""What a device does for one lane, queued on the lane's stream by address, and how far it has come.

torch's own copies were rejected: slices, guards and a current stream to set and reset cost a quarter of a millisecond
of Python for each extent, while a PCIe 5 link takes 8 MiB in 0.15. And each of them gives up the GIL, for which sixteen
readers stand in line: beside an H200 a bare loop of reads and copies came to 42 GB/s of the link's 55 with torch's
copies, and in another run to 50 with these. They keep the GIL: they only queue, which takes the driver microseconds.
Not so from or to host memory that is not pinned, which waits: that gives it up. torch's events give it up as well,
whether they are recorded or asked; so those of a lane are told and asked here, by handle.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from fastload._read.cuda_driver import open_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._read.cuda_driver import Context

_ARGUMENTS = {
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoDAsync_v2": (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuLaunchKernel": (
        ctypes.c_void_p,  # the function
        *(ctypes.c_uint,) * 7,  # programs and threads, three numbers each, and bytes of shared memory
        ctypes.c_void_p,  # the stream
        ctypes.c_void_p,  # pointers to the arguments
        ctypes.c_void_p,
    ),
    "cuEventRecord": (ctypes.c_void_p, ctypes.c_void_p),
    "cuEventQuery": (ctypes.c_void_p,),
    "cuEventSynchronize": (ctypes.c_void_p,),
    "cuStreamWaitEvent": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint),
    "cuCtxGetDevice": (ctypes.c_void_p,),
    "cuCtxGetCurrent": (ctypes.c_void_p,),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
}
_NOT_READY = 600


@cache
def load_calls(kind: type[ctypes.CDLL]) -> Any:
    """The driver's calls; ``kind`` is ``PyDLL``, which keeps the GIL, or ``CDLL``.

    Raises:
        UnsupportedError: there is no driver.
    """
    library = open_library(kind)
    for name, types in _ARGUMENTS.items():
        getattr(library, name).argtypes = types
    return library


@contextmanager
def in_context(own: Context) -> Iterator[None]:
    """Let a context of that device be current on the calling thread, which is somebody else's, until the block ends.

    The default stream, whose handle is null, is to the driver the one of the current context: as a rule that of the
    thread's current device, which may be another one than the stream's. Where one of the device is current it stays: a
    caller's green context has a default stream of its own, which is the one that is meant.
    """
    calls, device, before = load_calls(ctypes.PyDLL), ctypes.c_int(-1), ctypes.c_void_p()
    calls.cuCtxGetDevice(ctypes.byref(device))  # an error, and no number, where no context is current
    if device.value == own.device:
        yield
        return
    check(calls.cuCtxGetCurrent(ctypes.byref(before)))
    try:
        check(calls.cuCtxSetCurrent(ctypes.c_void_p(own.handle)))
        yield
    finally:
        check(calls.cuCtxSetCurrent(before))


class StreamEvent:
    """A point on a stream, which is over as long as none was set.

    torch makes the event, and destroys it; it does so where an event is first recorded.
    """

    def __init__(self) -> None:
        self._event = torch.cuda.Event(blocking=True)  # else who waits would take a core from those that read
        self._brief = load_calls(ctypes.PyDLL)
        self._waiting = load_calls(ctypes.CDLL)
        self.handle = 0
        """Of the driver; 0: it has none yet."""

    def set_on(self, stream: torch.cuda.Stream) -> None:
        """From now on it is behind all that is queued on ``stream`` so far."""
        if self.handle:
            check(self._brief.cuEventRecord(self.handle, stream.cuda_stream))
        else:
            self._event.record(stream)
            self.handle = self._event.cuda_event

    def is_over(self) -> bool:
        """Whether the device has passed it."""
        if not self.handle:
            return True
        code: int = self._brief.cuEventQuery(self.handle)
        if code != _NOT_READY:
            check(code)
        return code != _NOT_READY

    def wait(self) -> None:
        """Until the device has passed it; mostly it has, and to wait would give up the GIL."""
        if not self.is_over():
            check(self._waiting.cuEventSynchronize(self.handle))

    def hold_back(self, stream: torch.cuda.Stream) -> None:
        """What is queued on ``stream`` from now on comes after it; see :func:`in_context`."""
        if self.handle:
            check(self._brief.cuStreamWaitEvent(stream.cuda_stream, self.handle, 0))


class StreamQueue:
    """Copies on one stream. Nobody but the caller keeps the memory alive until the stream has passed them."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.handle: int = stream.cuda_stream
        self._brief = load_calls(ctypes.PyDLL)
        self._waiting = load_calls(ctypes.CDLL)

    def copy_in(self, to: int, of: int, nbytes: int, *, is_pinned: bool) -> None:
        """From host memory to the device."""
        library = self._brief if is_pinned else self._waiting
        check(library.cuMemcpyHtoDAsync_v2(to, of, nbytes, self.handle))

    def copy_within(self, to: int, of: int, nbytes: int) -> None:
        """From one place on the device to another."""
        check(self._brief.cuMemcpyDtoDAsync_v2(to, of, nbytes, self.handle))

    def copy_out(self, to: int, of: int, nbytes: int, *, is_pinned: bool) -> None:
        """From the device to host memory."""
        library = self._brief if is_pinned else self._waiting
        check(library.cuMemcpyDtoHAsync_v2(to, of, nbytes, self.handle))


def check(code: int) -> None:
    """Raise what torch would for an error of the driver; of it :mod:`~fastload._place.guarded` makes one of ours."""
    if code:
        raise RuntimeError(f"CUDA's driver answers a copy or a launch with error {code}")
