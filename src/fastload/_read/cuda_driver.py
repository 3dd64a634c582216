"""The few calls of CUDA's driver that fastload needs: memory of the driver's own, copies to and from it, kernels.

By ctypes on libcuda, which every machine with a usable NVIDIA device has: so that a process can look at storage and
device without importing torch, and because torch cannot give such memory. What its caching allocator gives is a piece
of a larger allocation, or (``expandable_segments``) mapped piece by piece; cuFile registers allocations as a whole.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LIBRARY = "libcuda.so.1"
_REGISTER_PORTABLE = 1
_PCI_ADDRESS_BYTES = 32
_CAPABILITY_MAJOR = 75
_OUT_OF_MEMORY = 2
_HINT = "What can go on through host memory does; else see nvidia-smi and dmesg"
_Pointer = ctypes.c_uint64


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes on a device, by address; whoever made it keeps them alive."""

    address: int
    nbytes: int

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        """How libraries that know nothing of one another hand device memory over."""
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}


class Context(NamedTuple):
    """The primary context of a device, by handles."""

    device: int
    handle: int


class CudaDriver:
    """Calls go to the calling thread's current context; :meth:`enter` makes one current."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.ran_out = False
        """True once there was too little memory for something, on the device or to begin with it."""

    def enter(self, ordinal: int) -> None:
        """Make the primary context of device ``ordinal``, which torch uses too, current on this thread."""
        self._call("cuCtxSetCurrent", ctypes.c_void_p(self.find_context(ordinal).handle))

    @contextmanager
    def within(self, ordinal: int) -> Iterator[None]:
        """The same until the end of the block, for a thread that may be the caller's: its current device would change.

        Raises:
            UnsupportedError: the driver answers with an error.
        """
        own, before = ctypes.c_void_p(self.find_context(ordinal).handle), ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(before))
        try:
            self._call("cuCtxSetCurrent", own)
            yield
        finally:
            self._call("cuCtxSetCurrent", before)

    def find_context(self, ordinal: int) -> Context:
        """That context, which is made where there is none; valid as long as the process lives."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        return Context(device.value, context.value or 0)

    def pci_address(self, ordinal: int) -> str:
        """Where device ``ordinal`` is, such as ``0000:1B:00.0``."""
        device, text = ctypes.c_int(), ctypes.create_string_buffer(_PCI_ADDRESS_BYTES)
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        self._call("cuDeviceGetPCIBusId", text, ctypes.c_int(len(text)), device)
        return text.value.decode()

    def major_capability(self, ordinal: int) -> int:
        """The generation of device ``ordinal``: 9 for an H100."""
        device, major = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        self._call("cuDeviceGetAttribute", ctypes.byref(major), ctypes.c_int(_CAPABILITY_MAJOR), device)
        return major.value

    def allocate(self, nbytes: int) -> DeviceMemory:
        """An allocation of its own on the current device."""
        pointer = _Pointer()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return DeviceMemory(pointer.value, nbytes)

    def free(self, memory: DeviceMemory) -> None:
        """Waits, as CUDA does, for all that the device has to do."""
        self._call("cuMemFree_v2", _Pointer(memory.address))

    def pin(self, address: int, nbytes: int) -> None:
        """Let the device copy from this host memory at full speed."""
        flags = ctypes.c_uint(_REGISTER_PORTABLE)
        self._call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(nbytes), flags)

    def unpin(self, address: int) -> None:
        """No copy from it may be under way."""
        self._call("cuMemHostUnregister", ctypes.c_void_p(address))

    def copy_to_device(self, memory: DeviceMemory, address: int, nbytes: int) -> None:
        """From host memory, and wait for it."""
        self._call("cuMemcpyHtoD_v2", _Pointer(memory.address), ctypes.c_void_p(address), ctypes.c_size_t(nbytes))

    def copy_to_host(self, address: int, memory: DeviceMemory, nbytes: int) -> None:
        """To host memory, and wait for it."""
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(address), _Pointer(memory.address), ctypes.c_size_t(nbytes))

    def load_function(self, code: bytes, name: str) -> int:
        """The handle of a kernel, on the current device; it stays loaded. PTX is compiled for that.

        Raises:
            UnsupportedError: the driver is too old for the code, or the device is.
        """
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(code))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(name.encode()))
        return function.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            self.ran_out |= code == _OUT_OF_MEMORY
            raise UnsupportedError(f"CUDA's driver answers {name} with error {code}", _HINT)


@cache
def load_driver() -> CudaDriver:
    """The one of this machine.

    Raises:
        UnsupportedError: there is none.
    """
    return CudaDriver(open_library(ctypes.CDLL))


def open_library(kind: Callable[[str], Any]) -> Any:
    """The driver's library, whose functions are called as ``kind``, one of ctypes's, calls them.

    Raises:
        UnsupportedError: it is not here.
    """
    try:
        return kind(_LIBRARY)
    except OSError as exc:
        raise UnsupportedError(
            f"no CUDA driver here: {exc}", "Install NVIDIA's driver, or check the container"
        ) from exc
