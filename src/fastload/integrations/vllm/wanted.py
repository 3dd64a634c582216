"""Which tensors of a source this rank wants: what vLLM's own loader would not read is not read here either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastload.integrations.vllm.files import find_index_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._load.inspection import Inspection

    Wanted = Callable[[str], bool]


def wanted_tensors(loader: Any, source: Any, inspection: Inspection) -> Wanted | None:
    """A predicate of the names in ``source``, before its prefix; None: all.

    Args:
        loader: vLLM's, which keeps the filters: experts of other ranks, shards of a language model that is left out.
        source: vLLM's.
        inspection: what is in it.
    """
    unwanted = _unwanted_shards(loader, source, inspection)
    is_local = _expert_filter(loader.local_expert_ids)
    if is_local is None and not unwanted:
        return None

    def is_wanted(name: str) -> bool:
        return inspection.tensors[name].shard not in unwanted and (is_local is None or is_local(name))

    return is_wanted


def _expert_filter(local_experts: set[int] | None) -> Wanted | None:
    if local_experts is None:
        return None
    from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight  # noqa: PLC0415 - vLLM is here

    return lambda name: not should_skip_weight(name, local_experts)


def _unwanted_shards(loader: Any, source: Any, inspection: Inspection) -> set[str]:
    """Whole shards only, as vLLM does: a part of a shard could not be proven by a digest of the whole."""
    unwanted: set[str] = set()
    prefixes = getattr(loader, "_encoder_only_lm_prefixes", None)  # since 0.31
    if prefixes is not None:
        unwanted |= _language_shards(prefixes, loader._encoder_only_weights_mapper, inspection)  # noqa: SLF001
    is_unused = getattr(source, "is_unused_weight", None)  # since 0.32
    if is_unused is not None:
        unused = _only(is_unused, inspection)
        unwanted |= unused if len(unused) < len(inspection.shards) else set()
    return unwanted


def _language_shards(prefixes: tuple[str, ...], mapper: Any, inspection: Inspection) -> set[str]:
    from vllm.model_executor.model_loader import weight_utils  # noqa: PLC0415 - vLLM is here

    paths = {shard.path: shard.name for shard in inspection.shards}
    index = find_index_name([shard.name for shard in inspection.shards])
    kept = weight_utils.filter_mm_encoder_only_safetensors_files(
        list(paths), inspection.path, index, prefixes, weights_mapper=mapper
    )
    return {name for path, name in paths.items() if path not in kept}


def _only(is_unused: Wanted, inspection: Inspection) -> set[str]:
    """The shards all of whose tensors are unused."""
    used = {facts.shard for name, facts in inspection.tensors.items() if not is_unused(name)}
    return {shard.name for shard in inspection.shards} - used
