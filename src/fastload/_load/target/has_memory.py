"""Whether a module has memory that can be filled, and how to give it some without losing anything by that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.parameter import is_lazy

from fastload.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch


def check_has_memory(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Each of ``tensors``, which ``module`` stores by these names, has memory.

    Raises:
        UsageError: some are lazy, or on the meta device.
    """
    for name, tensor in tensors.items():
        if is_lazy(tensor):
            what = f"parameter {quoted(name)} has no shape yet: its layer is lazy"
            raise UsageError(what, "Run the module once on an input of the right shape, then load")
    meta = [name for name, tensor in tensors.items() if tensor.is_meta]
    if meta:
        what = f"{len(meta)} of {len(tensors)} parameters have no memory, {quoted(meta[0])} for one: they are on meta"
        raise UsageError(what, _cure(module, tensors))


def _cure(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """``to_empty``, and what is to be done after it: it knows no ties, and empties what has memory as well."""
    cure = 'Give them some first: module.to_empty(device="cuda")'
    first_names: dict[int, str] = {}
    tied = [
        (name, first) for name, tensor in tensors.items() if (first := first_names.setdefault(id(tensor), name)) != name
    ]
    if tied:
        name, first = tied[0]
        cure += f". It parts {quoted(name)} from {quoted(first)}{_more(tied)}: tie again what was tied"
    unstored = [name for name, buffer in module.named_buffers() if id(buffer) not in first_names]
    if unstored:
        cure += f". It leaves {quoted(unstored[0])}{_more(unstored)} undefined: compute anew what no checkpoint holds"
    return cure


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
