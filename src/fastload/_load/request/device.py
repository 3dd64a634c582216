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
        built = "was built without CUDA" if torch.version.cuda is None else "sees no device"
        raise UnsupportedError(
            f"torch {torch.__version__} {built}", "Install a CUDA build, check nvidia-smi, or use cpu"
        )
    index: int | None = parsed.index  # torch's stubs know no None
    if index is None:
        index = torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise UsageError(f"no device cuda:{index}", f"There are {torch.cuda.device_count()}")
    return torch.device("cuda", index)
