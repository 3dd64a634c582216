"""Makes a checkpoint to measure with: Llama's names and shapes, as many bytes as asked for, and not one page of zeros.

The bytes are random, so that no file system compresses them, no two 4 MiB blocks are equal, and what is asked for twice
comes out the same. They are written as a stream: a checkpoint far larger than memory can be made.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, count
from math import prod
from typing import TYPE_CHECKING

from fastload._fetch.pace import Pace
from fastload._settings.environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GIB = 1 << 30
_BLOCK_BYTES = 64 << 20  # 64 MiB
_PACED_BYTES = 4 << 20  # 4 MiB
_HIDDEN, _INNER, _KEYS = 2048, 8192, 512  # the layers of Llama 3.2 1B
_WORD = 1 << 64
_BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Weight:
    """A BF16 tensor to be."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return prod(self.shape) * _BF16_BYTES


def list_llama(nbytes: int) -> list[Weight]:
    """A Llama of about ``nbytes``: as many layers as fit beside 8,000 words; more words take what is left."""
    layer_bytes = sum(weight.nbytes for weight in _list_layer(0))
    row_bytes = 2 * _HIDDEN * _BF16_BYTES  # a word's row in the embedding and one in the head
    layers = max(0, (nbytes - 8000 * row_bytes) // layer_bytes)
    words = max(64, (nbytes - layers * layer_bytes) // row_bytes // 64 * 64)
    body = [weight for number in range(layers) for weight in _list_layer(number)]
    return [
        Weight("model.embed_tokens.weight", (words, _HIDDEN)),
        *body,
        Weight("model.norm.weight", (_HIDDEN,)),
        Weight("lm_head.weight", (words, _HIDDEN)),
    ]


def _list_layer(number: int) -> list[Weight]:
    shapes = {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_KEYS, _HIDDEN),
        "self_attn.v_proj": (_KEYS, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
        "input_layernorm": (_HIDDEN,),
        "post_attention_layernorm": (_HIDDEN,),
    }
    return [Weight(f"model.layers.{number}.{name}.weight", shape) for name, shape in shapes.items()]


def list_tiny(number: int) -> list[Weight]:
    """``number`` tensors of 256 to 4,096 bytes, like the scales of a quantised mixture of experts."""
    sizes = random.Random(number)  # noqa: S311 - not for secrets
    return [
        Weight(f"model.layers.{at // 64}.mlp.experts.{at % 64}.down_proj.weight_scale", (sizes.randint(128, 2048),))
        for at in range(number)
    ]


@dataclass(frozen=True, slots=True)
class _Shard:
    """A file to be."""

    path: str
    weights: Sequence[Weight]
    noise_seed: int
    noise_begin: int
    """Its first block of noise; they follow one another through all files."""
    max_rate: int | None
    """Bytes a second."""


def write_checkpoint(
    folder: str, weights: Sequence[Weight], *, shards: int, processes: int = 1, max_rate: int | None = None
) -> int:
    """Write ``shards`` files of about one size, an index if there are several, and bring all of it to the disk.

    Args:
        folder: where to.
        weights: in the model's order.
        shards: how many files; fewer if there are fewer weights.
        processes: that write at once; what they write is the same.
        max_rate: bytes a second that each of them writes; None: as fast as it goes.

    Returns:
        The bytes of the tensors.
    """
    total = sum(weight.nbytes for weight in weights)
    os.makedirs(folder, exist_ok=True)
    parts = _split(weights, min(shards, len(weights)))
    weight_map: dict[str, str] = {}
    todo: list[_Shard] = []
    noise_begin = 0
    for number, part in enumerate(parts, start=1):
        alone = len(parts) == 1
        name = "model.safetensors" if alone else f"model-{number:05}-of-{len(parts):05}.safetensors"
        todo.append(_Shard(os.path.join(folder, name), part, total, noise_begin, max_rate))
        noise_begin += -(-sum(weight.nbytes for weight in part) // _BLOCK_BYTES)
        weight_map |= {weight.name: name for weight in part}
    if processes == 1:
        list(map(_write_shard, todo))
    else:
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(_write_apart, todo))
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_durably(os.path.join(folder, "model.safetensors.index.json"), [json.dumps(index, indent=2).encode()])
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return total


def _split(weights: Sequence[Weight], shards: int) -> list[list[Weight]]:
    """Filled in the model's order, like Hugging Face's; within a shard sorted by name, like safetensors'."""
    total = sum(weight.nbytes for weight in weights)
    parts: list[list[Weight]] = [[] for _ in range(shards)]
    begin = 0
    for weight in weights:
        parts[begin * shards // total].append(weight)
        begin += weight.nbytes
    return [sorted(part, key=lambda weight: weight.name) for part in parts if part]


def _write_apart(shard: _Shard) -> None:
    """In a process of its own, started by us: a pool's would have this one's environment."""
    command = [sys.executable, "-m", "fastload.ops.bench.checkpoint"]
    asked = json.dumps(asdict(shard))
    done = subprocess.run(command, input=asked, stderr=subprocess.PIPE, text=True, check=False, env=child_environment())
    if done.returncode:
        raise OSError(f"{shard.path}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def main() -> None:
    """Write the shard that stdin tells of."""
    facts = json.load(sys.stdin)
    weights = [Weight(weight["name"], tuple(weight["shape"])) for weight in facts.pop("weights")]
    _write_shard(_Shard(weights=weights, **facts))


def _write_shard(shard: _Shard) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in shard.weights:
        begin, end = end, end + weight.nbytes
        entries[weight.name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    noise = _make_noise(shard.noise_seed, shard.noise_begin)
    chunks: Iterable[bytes | memoryview] = chain([len(header).to_bytes(8, "little") + header], _take(noise, end))
    _write_durably(shard.path, chunks, max_rate=shard.max_rate)


def _write_durably(path: str, chunks: Iterable[bytes | memoryview], *, max_rate: int | None = None) -> None:
    pace = Pace(max_rate)
    with open(path, "wb", buffering=0) as file:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                written_bytes = file.write(rest if max_rate is None else rest[:_PACED_BYTES])
                if max_rate is not None:  # what only the page cache has got would reach a share all at once
                    os.fdatasync(file.fileno())
                    pace.wait(written_bytes)
                rest = rest[written_bytes:]
        os.fsync(file.fileno())


def _make_noise(seed: int, begin: int) -> Iterator[memoryview]:
    """Endless random blocks: the first one, xored with another word each time."""
    # Python's integers xor 64 MiB as fast as a disk writes them, and need no torch.
    base = int.from_bytes(random.Random(seed).randbytes(_BLOCK_BYTES), "little")  # noqa: S311 - not for secrets
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * (_BLOCK_BYTES // 8), "little")
    for number in count(begin):
        word = (number + 1) * 0x9E3779B97F4A7C15 % _WORD  # odd, so that no two numbers give the same word
        yield memoryview((base ^ ones * word).to_bytes(_BLOCK_BYTES, "little"))


def _take(noise: Iterator[memoryview], nbytes: int) -> Iterator[memoryview]:
    while nbytes:
        block = next(noise)[:nbytes]
        nbytes -= len(block)
        yield block


if __name__ == "__main__":
    main()
