"""BLAKE3 of many blocks, as two Triton kernels. Imported only by :mod:`fastload._place.gpu_digest`, when it is needed.

Source: the BLAKE3 paper, https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf, sections 2.1 to 2.5. Its
*chunk* is 1 KiB; its 64-byte block is called *message* here, because a block of ours is 4 MiB. Each of our blocks is a
hash of its own: chunks are counted from its start. A *slab* is the chunks of one program, a *value* the eight words
(256 bits) that a chunk or a subtree comes to, a *lane* one element of a program's vectors, which is one GPU thread.

1. :func:`hash_slabs`: one lane per chunk, 16 compressions in a row, then the tree over the slab: one value per slab.
2. :func:`hash_blocks`: one program per block, the tree over its slabs: one digest per block.

The tree pairs neighbours level by level; an odd one out goes up unchanged. That is the paper's tree, whose left subtree
is the largest full one, and it lets every aligned slab be reduced without a look at the others.

**Memory.** A lane needs the 64 bytes of its message in its own registers, and its neighbour's lie 1 KiB further. Loads
word by word would touch 32 cache lines for 128 bytes, 16 times over. So each lane loads its message as four vectors of
16 bytes, back to back: they use up two whole 32-byte sectors, which is one DRAM access, so no byte comes twice,
whatever the cache keeps. They cost the cache 4 x 32 look-ups per warp and message, against some 300 cycles of
arithmetic on the same SM. A tile loaded contiguously and turned in shared memory costs about as much, and a barrier in
each step. The shape [4, lanes, 4] makes the compiler choose so: it lays lanes before quarters (seen in its output:
LDG.E.128, nothing shuffled). The next message is loaded before this one is compressed, because a 16 MiB slot gives an
SM only four warps, too few to hide the latency for each other; within a compression four independent columns keep the
units busy. These are reckonings from the compiler's output, not measurements.

**Compile time.** The compiler's coalescing pass takes time by the square of the code for each load and store; that is
why values move as one tile. Messages and levels are loops; only the seven rounds are unrolled, because there the
permutation of the words is a renaming of registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastload._verify.digest import BLOCK_BYTES

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 4):
    raise ImportError(f"Triton {triton.__version__} has no tuples of constants: 3.4 or later is needed")

_WORD_BYTES = tl.constexpr(4)
_CHUNK_BYTES = tl.constexpr(1024)
_BLOCK_CHUNKS = tl.constexpr(BLOCK_BYTES // 1024)
_IV = tl.constexpr((0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19))
_CHUNK_START = tl.constexpr(1)
_CHUNK_END = tl.constexpr(2)
_PARENT = tl.constexpr(4)
_ROOT = tl.constexpr(8)
OPTIONS = {"enable_fp_fusion": False}
"""For whoever compiles or launches them. All numbers are whole, so there is nothing to fuse; but Triton 3.9 warns where
it is not told, and where warnings are errors, nothing would be compiled."""


@triton.jit
def _mix(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor, x: tl.tensor, y: tl.tensor) -> tl.tuple:
    """G of the paper (2.2). Sums are modulo 2^32: Triton's check for overflow, which TRITON_DEBUG turns on, is off."""
    a = tl.add(tl.add(a, b, sanitize_overflow=False), x, sanitize_overflow=False)
    d = d ^ a
    d = (d >> 16) | (d << 16)
    c = tl.add(c, d, sanitize_overflow=False)
    b = b ^ c
    b = (b >> 12) | (b << 20)
    a = tl.add(tl.add(a, b, sanitize_overflow=False), y, sanitize_overflow=False)
    d = d ^ a
    d = (d >> 8) | (d << 24)
    c = tl.add(c, d, sanitize_overflow=False)
    b = b ^ c
    b = (b >> 7) | (b << 25)
    return a, b, c, d


@triton.jit
def _round(v: tl.tuple, m: tl.tuple) -> tl.tuple:
    """Columns, then diagonals, of the 16 words of state ``v`` with the 16 of the message ``m``; each word [lanes]."""
    v0, v4, v8, v12 = _mix(v[0], v[4], v[8], v[12], m[0], m[1])
    v1, v5, v9, v13 = _mix(v[1], v[5], v[9], v[13], m[2], m[3])
    v2, v6, v10, v14 = _mix(v[2], v[6], v[10], v[14], m[4], m[5])
    v3, v7, v11, v15 = _mix(v[3], v[7], v[11], v[15], m[6], m[7])
    v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[8], m[9])
    v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[10], m[11])
    v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[12], m[13])
    v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[14], m[15])
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


@triton.jit
def _permuted(m: tl.tuple) -> tl.tuple:
    """The message of the next round (paper, table 2)."""
    return m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]


@triton.jit
def _filled(word: tl.constexpr, lanes: tl.constexpr) -> tl.tensor:
    return tl.full((lanes,), word, tl.uint32)


@triton.jit
def _initial(lanes: tl.constexpr) -> tl.tuple:
    """The value that chunks and parents begin with, in every lane."""
    low = _filled(_IV[0], lanes), _filled(_IV[1], lanes), _filled(_IV[2], lanes), _filled(_IV[3], lanes)
    high = _filled(_IV[4], lanes), _filled(_IV[5], lanes), _filled(_IV[6], lanes), _filled(_IV[7], lanes)
    return low + high


@triton.jit
def _compress(h: tl.tuple, m: tl.tuple, tweak: tl.tuple, lanes: tl.constexpr) -> tl.tuple:
    """The next value after ``h`` and the message ``m`` (paper, 2.2): 8 words, each [lanes].

    ``tweak`` is the chunk's counter (its upper half is 0: a block has 4,096 chunks), the message's bytes, the flags.
    """
    iv = _initial(lanes)
    lower = iv[0], iv[1], iv[2], iv[3], tweak[0], _filled(0, lanes), tweak[1], tweak[2]
    v = h + lower
    for _ in tl.static_range(6):
        v = _round(v, m)
        m = _permuted(m)
    v = _round(v, m)
    low = v[0] ^ v[8], v[1] ^ v[9], v[2] ^ v[10], v[3] ^ v[11]
    high = v[4] ^ v[12], v[5] ^ v[13], v[6] ^ v[14], v[7] ^ v[15]
    return low + high


@triton.jit
def _chosen(which: tl.tensor, h: tl.tuple, g: tl.tuple) -> tl.tuple:
    """``h`` in the lanes where ``which`` [lanes], else ``g``."""
    h0, h1 = tl.where(which, h[0], g[0]), tl.where(which, h[1], g[1])
    h2, h3 = tl.where(which, h[2], g[2]), tl.where(which, h[3], g[3])
    h4, h5 = tl.where(which, h[4], g[4]), tl.where(which, h[5], g[5])
    h6, h7 = tl.where(which, h[6], g[6]), tl.where(which, h[7], g[7])
    return h0, h1, h2, h3, h4, h5, h6, h7


@triton.jit
def _halves(tile: tl.tensor, lanes: tl.constexpr, half: tl.constexpr) -> tl.tuple:
    """The left and the right half of the columns of ``tile`` [lanes, 2 x half]."""
    return tl.split(tl.permute(tl.reshape(tile, (lanes, 2, half)), (0, 2, 1)))


@triton.jit
def _eight(tile: tl.tensor, lanes: tl.constexpr) -> tl.tuple:
    """The columns of ``tile`` [lanes, 8], each [lanes]."""
    left, right = _halves(tile, lanes, 4)
    w01, w23 = _halves(left, lanes, 2)
    w45, w67 = _halves(right, lanes, 2)
    return tl.split(w01) + tl.split(w23) + tl.split(w45) + tl.split(w67)


@triton.jit
def _sixteen(tile: tl.tensor, lanes: tl.constexpr) -> tl.tuple:
    """The 16 words of the messages in ``tile`` [4, lanes, 4], each [lanes]."""
    left, right = _halves(tl.reshape(tl.permute(tile, (1, 0, 2)), (lanes, 16)), lanes, 8)
    return _eight(left, lanes) + _eight(right, lanes)


@triton.jit
def _load_message(words: tl.tensor, at: tl.tensor, left: tl.tensor, is_cut: tl.tensor) -> tl.tensor:
    """The messages at word ``at`` [lanes] of the buffer: [4, lanes, 4], zeros where fewer than ``left`` bytes are left.

    Whether to load is decided per message, not per word, else there were no 16-byte loads. So up to 63 bytes past the
    end are read. ``is_cut``, the same for the whole program, says whether the end is in its slab: others need not mask.
    """
    column = tl.arange(0, 4)[:, None, None] * 4 + tl.arange(0, 4)[None, None, :]
    tile = tl.load(words + at[None, :, None] + column, mask=(left > 0)[None, :, None], other=0)
    if is_cut:
        valid = tl.maximum(left[None, :, None] - column * 4, 0)
        keep = ((1 << (tl.minimum(valid, 3) * 8)) - 1).to(tl.uint32)
        tile = tl.where(valid < _WORD_BYTES, tile & keep, tile)
    return tile


@triton.jit
def _chunk_values(words: tl.tensor, length: tl.tensor, first: tl.tensor, lanes: tl.constexpr) -> tl.tuple:
    """The values of the ``lanes`` chunks from chunk ``first`` of the buffer on (paper, 2.4): 8 words, each [lanes].

    Lanes beyond the end compute what nobody reads, but for the very first: nothing at all is one empty chunk.
    """
    chunk = first + tl.arange(0, lanes)
    nbytes = tl.minimum(tl.maximum(length - chunk * _CHUNK_BYTES, 0), _CHUNK_BYTES)
    last = tl.maximum(nbytes - 1, 0) // 64
    block_bytes = length - first // _BLOCK_CHUNKS * _BLOCK_CHUNKS * _CHUNK_BYTES
    end_flags = tl.where(block_bytes <= _CHUNK_BYTES, _CHUNK_END + _ROOT, _CHUNK_END)
    is_cut = (first + lanes) * _CHUNK_BYTES > length
    h = _initial(lanes)
    following = _load_message(words, chunk * 256, nbytes, is_cut)
    for number in range(tl.maximum(tl.minimum(length - first * _CHUNK_BYTES, _CHUNK_BYTES) + 63, 64) // 64):
        message = following
        left = nbytes - number * 64
        following = _load_message(words, chunk * 256 + (number + 1) * 16, left - 64, is_cut)
        flags = tl.where(number == 0, _CHUNK_START, 0) | tl.where(number == last, end_flags, 0)
        used = tl.minimum(tl.maximum(left, 0), 64)
        tweak = (chunk % _BLOCK_CHUNKS).to(tl.uint32), used.to(tl.uint32), flags.to(tl.uint32)
        h = _chosen(number <= last, _compress(h, _sixteen(message, lanes), tweak, lanes), h)
    return h


@triton.jit
def _partners(h: tl.tuple, lane: tl.tensor) -> tl.tuple:
    """The values that the lanes ``lane`` [lanes] hold."""
    low = tl.gather(h[0], lane, 0), tl.gather(h[1], lane, 0), tl.gather(h[2], lane, 0), tl.gather(h[3], lane, 0)
    high = tl.gather(h[4], lane, 0), tl.gather(h[5], lane, 0), tl.gather(h[6], lane, 0), tl.gather(h[7], lane, 0)
    return low + high


@triton.jit
def _tree_value(h: tl.tuple, first: tl.tensor, nodes: tl.tensor, lanes: tl.constexpr) -> tl.tuple:
    """The value of the tree over all lanes (paper, 2.5), in lane 0; the others hold leavings.

    Lane i holds node ``first`` + i of a block that has ``nodes`` of them on this level. On each level the lanes at
    multiples of twice the stride take their right neighbour in: lanes keep their places and the vectors their length,
    so that the levels are one loop. The compression that leaves the block one node is the root's.
    """
    lane = tl.arange(0, lanes)
    node = first + lane
    stride = 1
    while (stride < lanes) & (nodes > 1):
        message = h + _partners(h, lane ^ stride)
        nodes_above = (nodes + 1) // 2
        flags = tl.where(nodes_above == 1, _PARENT + _ROOT, _PARENT).to(tl.uint32)
        tweak = _filled(0, lanes), _filled(64, lanes), _filled(0, lanes) + flags
        h = _chosen(node + 1 < nodes, _compress(_initial(lanes), message, tweak, lanes), h)
        node = node // 2
        nodes = nodes_above
        stride = stride * 2
    return h


@triton.jit
def _store_first(out: tl.tensor, h: tl.tuple, lanes: tl.constexpr) -> None:
    """The value in lane 0 to the eight words at ``out``."""
    even = tl.join(tl.join(h[0], h[4]), tl.join(h[2], h[6]))
    odd = tl.join(tl.join(h[1], h[5]), tl.join(h[3], h[7]))
    tile = tl.reshape(tl.join(even, odd), (lanes, 8))
    row, column = tl.arange(0, lanes)[:, None], tl.arange(0, 8)[None, :]
    tl.store(out + row * 8 + column, tile.to(tl.int32, bitcast=True), mask=row < 1)


@triton.jit(do_not_specialize=["length"])
def hash_slabs(buffer: tl.tensor, length: tl.tensor, values: tl.tensor, lanes: tl.constexpr) -> None:
    """One program per slab of ``lanes`` chunks of ``buffer`` (uint8, aligned to 16): a row of ``values`` [slabs, 8].

    ``length`` is not specialised: a length that happens to be a multiple of 16 would be compiled for anew.
    """
    slab = tl.program_id(0)
    first = slab * lanes
    words = buffer.to(tl.pointer_type(tl.uint32), bitcast=True)
    h = _chunk_values(words, length, first, lanes)
    in_block = first % _BLOCK_CHUNKS
    block_bytes = tl.minimum(length - (first - in_block) * _CHUNK_BYTES, _BLOCK_CHUNKS * _CHUNK_BYTES)
    h = _tree_value(h, in_block, (block_bytes + _CHUNK_BYTES - 1) // _CHUNK_BYTES, lanes)
    _store_first(values + slab * 8, h, lanes)


@triton.jit(do_not_specialize=["length"])
def hash_blocks(values: tl.tensor, length: tl.tensor, digests: tl.tensor, lanes: tl.constexpr) -> None:
    """One program per block of ``lanes`` slabs: from ``values`` [slabs, 8] to ``digests`` [blocks, 8], int32 both."""
    block = tl.program_id(0)
    slab_bytes: tl.constexpr = _BLOCK_CHUNKS // lanes * _CHUNK_BYTES
    block_bytes = tl.minimum(length - block * _BLOCK_CHUNKS * _CHUNK_BYTES, _BLOCK_CHUNKS * _CHUNK_BYTES)
    slabs = tl.maximum((block_bytes + slab_bytes - 1) // slab_bytes, 1)
    row, column = tl.arange(0, lanes)[:, None], tl.arange(0, 8)[None, :]
    tile = tl.load(values + (block * lanes + row) * 8 + column, mask=row < slabs, other=0)
    h = _tree_value(_eight(tile.to(tl.uint32, bitcast=True), lanes), 0, slabs, lanes)
    _store_first(digests + block * 8, h, lanes)


IS_INTERPRETED = not isinstance(hash_slabs, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter, on the CPU: TRITON_INTERPRET decides it as they are defined."""
