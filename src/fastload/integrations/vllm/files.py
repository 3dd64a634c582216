"""Which files of a folder vLLM loads with ``--load-format auto``: here they are the same, and so is what they make.

Mistral's own files go first, as they do where vLLM looks for the config. There is no rule for variants, nor for a
``model.safetensors`` that others lie beside: vLLM reads all files, or those that an index names, in the order of the
numbers in their names, and what comes last stays; what the index says of their tensors, it does not ask
(vLLM 0.27 to 0.33, ``DefaultModelLoader._prepare_weights``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._format.index import INDEX_SUFFIX, SHARD_SUFFIX
from fastload._format.select import Layered, LayeredByIndex, check_numbers, order_by_numbers, select_files

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastload._format.select import Selection

_MISTRAL, _MODEL = "consolidated", "model"


def select_as_vllm(names: Collection[str], *, path: str) -> Selection:
    """What vLLM takes of the files ``names`` in a folder ``path``.

    Raises:
        FormatError: no safetensors weights, or a numbered set without an index has a gap, which vLLM would pass over.
    """
    shards = [name for name in names if name.endswith(SHARD_SUFFIX) and not name.startswith(".")]
    index = find_index_name(shards)
    if index in names:
        return LayeredByIndex(index)
    if not shards:
        return select_files(names, variant=None, path=path)
    taken = [name for name in shards if name.startswith(_MISTRAL)] or shards
    check_numbers(taken, path)
    return Layered(tuple(order_by_numbers(taken)))


def is_mistrals(names: Collection[str]) -> bool:
    """True if Mistral's own files are among the files ``names``: they decide on the format of the config, too."""
    return any(name.startswith(_MISTRAL) and name.endswith(SHARD_SUFFIX) for name in names)


def find_index_name(names: Collection[str]) -> str:
    """What the index would be called by which vLLM chooses among ``names``."""
    return (_MISTRAL if is_mistrals(names) else _MODEL) + INDEX_SUFFIX
