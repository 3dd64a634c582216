"""``device=``, parsed."""

from __future__ import annotations

import torch

from fastload.errors import UnsupportedError, UsageError


def parse_device(device: torch.device | str) -> torch.device:
    """The device that ``device=`` means; a bare ``cuda`` is the current one.

    Raises:
        UsageError: no such device.
        UnsupportedError: a device that fastload does not serve, or no CUDA here.
    """
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError) as exc:
        raise UsageError(f"no device {str(device)!r}", "Use cpu, cuda or cuda:1") from exc
    if parsed.type == "cpu":
        return torch.device("cpu")
    if parsed.type != "cuda":
        raise UnsupportedError(f"device {parsed.type!r} is not served", 'Load with device="cpu" and move the tensors')
    if not torch.cuda.is_available():
        raise _no_cuda()
    index: int | None = parsed.index  # torch's stubs know no None
    if index is None:
        index = torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise UsageError(f"no device cuda:{index}", f"There are {torch.cuda.device_count()}")
    return torch.device("cuda", index)


def _no_cuda() -> UnsupportedError:
    if torch.version.cuda is None:
        return UnsupportedError(f"torch {torch.__version__} was built without CUDA", "Install a CUDA build, or use cpu")
    hint = "Check nvidia-smi, CUDA_VISIBLE_DEVICES and that the container was given the GPU, or use cpu"
    return UnsupportedError(f"torch {torch.__version__}, a CUDA build, sees no device", hint)
