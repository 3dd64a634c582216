"""The public functions: keywords become a request. And the command line's own, which has one already.

Nothing here imports torch until a request has been parsed, and ``inspect`` never does.
"""

from __future__ import annotations

import os
import posixpath
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.find.model import Source
from fastload._load.group.joining import joining_group
from fastload._load.importing import importing_torch
from fastload._load.inspection import inspect_source
from fastload._load.request.request import Request, begin_deadline
from fastload._progress import checked
from fastload.errors import UsageError
from fastload.options import decide_settings, find_deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch.distributed import ProcessGroup

    from fastload._load.inspection import Inspection
    from fastload._load.request.request import Tensors
    from fastload._load.request.shard import Shard
    from fastload._load.stream.stream import Stream, Weights
    from fastload._progress import Callback
    from fastload.options import Options
    from fastload.report import Report


def load(  # noqa: PLR0913 - the public signature; all but the model go by keyword
    model: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    subfolder: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    tensors: Tensors | None = None,
    dtype: torch.dtype | str | None = None,
    verify: str | None = None,
    reader: str | None = None,
    group: ProcessGroup | None = None,
    shard: Shard | None = None,
    progress: bool | Callback | None = None,
    options: Options | None = None,
) -> Weights:
    """All wanted tensors of ``model`` by name, on ``device``; ``.report`` says what was done.

    Args:
        model: a name, such as ``org/name``, ``org/name@revision``, an alias or a folder's name on a tier; or the path
            of a folder, of a ``.safetensors`` file or of an index. A str is a path if it begins with ``/``, ``./``,
            ``../`` or ``~``, or ends in one of the suffixes; a PathLike always is one.
        device: ``cpu``, ``cuda`` (the current one), ``cuda:1``.
        revision: a branch, tag or commit, where the name does not say one.
        subfolder: where in the model's folder the weights are, as in a diffusers pipeline.
        variant: ``fp16`` for ``model.fp16.safetensors``.
        tensors: a glob, a sequence of globs, or a predicate of the name. What is not wanted is not read.
        dtype: F64, F32, F16 and BF16 tensors are cast to this one of them; integers stay as they are.
        verify: ``auto``: by the best evidence there is, which the report names; ``require``: an error where there is
            none, or not enough for what is asked; ``off``.
        reader: ``auto``, ``gds``, ``direct``, ``buffered`` or ``mmap``.
        group: a process group of torch.distributed whose ranks all make this call: each byte leaves storage once, and
            goes from rank to rank. Nothing runs on the group itself. See docs/scaling.md.
        shard: what this rank keeps: ``{name or glob: placement}`` with placements of torch.distributed.tensor or
            DTensors, or a predicate of the name. Rows that are not kept are not read, unless by another rank.
        progress: None: a bar on a terminal, silence elsewhere; True: a line every ten seconds elsewhere;
            or a callable ``(done_bytes, total_bytes)``.
        options: settings; a keyword is stronger.

    Raises:
        ModelNotFoundError: nothing is there.
        FormatError: a file is malformed or missing, or there are no safetensors weights.
        IntegrityError: the bytes are not those that the evidence says, or a file changed, or ended early, while it was
            read.
        StoreError: storage cannot be read.
        MemoryBudgetError: it would not fit; raised before anything is allocated, where that can be foreseen.
        UsageError: an argument or setting that cannot be meant.
        UnsupportedError: this machine, file system or torch cannot do what was asked by name.
        GroupError: another rank of the group failed, or the ranks disagree; the group itself stays usable.
    """
    given = _Keywords(
        model, revision, subfolder, variant, tensors, dtype, verify, reader, group, shard, progress, options
    )
    with given.parsed() as request:
        with importing_torch():
            from fastload._load import engine
        return engine.load(request, device)


def stream(  # noqa: PLR0913 - as for load
    model: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    subfolder: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    tensors: Tensors | None = None,
    dtype: torch.dtype | str | None = None,
    verify: str | None = None,
    reader: str | None = None,
    group: ProcessGroup | None = None,
    shard: Shard | None = None,
    progress: bool | Callback | None = None,
    options: Options | None = None,
) -> Stream:
    """An iterator over ``(name, tensor)`` in file order; the next tensors are being read while the caller works.

    Each tensor owns its memory, and no whole shard is held. Leaving the loop early, :meth:`~Stream.close` or the end
    of a ``with`` stop the reading; then, or at the end, ``.report`` says what was done.

    Args and Raises: as for :func:`load`. What only shows while reading is raised by the iteration.
    """
    given = _Keywords(
        model, revision, subfolder, variant, tensors, dtype, verify, reader, group, shard, progress, options
    )
    with given.parsed() as request:
        with importing_torch():
            from fastload._load import engine
        return engine.stream(request, device)


def load_into(  # noqa: PLR0913 - as for load
    module: torch.nn.Module,
    model: str | os.PathLike[str],
    *,
    strict: bool = True,
    revision: str | None = None,
    subfolder: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    tensors: Tensors | None = None,
    dtype: torch.dtype | str | None = None,
    verify: str | None = None,
    reader: str | None = None,
    group: ProcessGroup | None = None,
    shard: Shard | None = None,
    progress: bool | Callback | None = None,
    options: Options | None = None,
) -> Report:
    """Bring ``model`` into the parameters and persistent buffers of ``module``, without a second copy of the weights.

    Parameters that share storage count once, so a tied ``lm_head`` is not missing. What differs in floating-point
    dtype is cast to the parameter's. After an error that came while reading, the module's content is undefined.

    Args:
        module: none of its parameters may be on the meta device.
        model: as for :func:`load`.
        strict: every parameter must have its tensor, and every tensor its parameter.
        revision: as for :func:`load`.
        subfolder: as for :func:`load`.
        variant: as for :func:`load`.
        tensors: as for :func:`load`; a parameter that this leaves out is not missing.
        dtype: what the caller takes the floating-point parameters to be; another one is a mismatch.
        verify: as for :func:`load`.
        reader: as for :func:`load`.
        group: as for :func:`load`.
        shard: as for :func:`load`; parameters that are DTensors say themselves what of them is here.
        progress: as for :func:`load`.
        options: as for :func:`load`.

    Raises:
        UsageError: all mismatches of names, shapes and dtypes at once; parameters on meta.
        UnsupportedError: parameters that wrap other tensors, except DTensor.
        FastloadError: as for :func:`load`.
    """
    given = _Keywords(
        model, revision, subfolder, variant, tensors, dtype, verify, reader, group, shard, progress, options
    )
    with given.parsed() as request:
        with importing_torch():
            from fastload._load import engine
        return engine.load_into(request, module, strict=strict)


def discard(request: Request, device: str, begin: Callable[[Stream], Callable[[torch.Tensor], object]]) -> Report:
    """A load of which nothing is kept, for the command line: the model may be larger than memory.

    Args:
        request: what to load.
        device: as for :func:`load`.
        begin: is given the stream of each try before it reads, and returns who is shown its tensors.

    Raises:
        FastloadError: as for :func:`load`.
    """
    with importing_torch():
        from fastload._load import engine
    return engine.discard(request, device, begin)


def inspect(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    options: Options | None = None,
) -> Inspection:
    """What ``model`` holds, by its headers: ``.tensors[name].dtype`` and ``.shape``, ``.metadata``, ``.shards``.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError: as for :func:`load`.
    """
    return inspect_source(_parse_source(model, subfolder, variant, revision), decide_settings(options, {}))


@dataclass(frozen=True, slots=True)
class _Keywords:
    """What load, stream and load_into take alike, in the order of their signatures."""

    model: str | os.PathLike[str]
    revision: str | None
    subfolder: str | os.PathLike[str] | None
    variant: str | None
    tensors: Tensors | None
    dtype: torch.dtype | str | None
    verify: str | None
    reader: str | None
    group: ProcessGroup | None
    shard: Shard | None
    progress: bool | Callback | None
    options: Options | None

    @contextmanager
    def parsed(self) -> Iterator[Request]:
        """The request that they are; the other ranks of its group are told of an error in the ``with``."""
        with joining_group(self.group, partial(find_deadline, self.options)) as pending:
            source = _parse_source(self.model, self.subfolder, self.variant, self.revision)
            settings = decide_settings(self.options, {"verify": self.verify, "reader": self.reader})
            yield Request(
                source=source,
                tensors=self.tensors,
                dtype=self.dtype,
                progress=checked(self.progress),
                settings=settings,
                deadline=begin_deadline(source, settings),
                group=pending,
                shard=self.shard,
            )


def _parse_source(
    model: str | os.PathLike[str],
    subfolder: str | os.PathLike[str] | None,
    variant: str | None,
    revision: str | None,
) -> Source:
    if isinstance(subfolder, os.PathLike):
        subfolder = os.fspath(subfolder)
    for name, value in (("subfolder", subfolder), ("variant", variant)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name}= got {type(value).__name__}", "Give a str")
    return Source(model, _in_one_spelling(subfolder), variant, revision)


def _in_one_spelling(subfolder: str | None) -> str | None:
    """Without the dots and slashes that say nothing; what leads out of the model is left for who refuses it."""
    if not subfolder or subfolder.startswith("/") or ".." in subfolder.split("/"):
        return subfolder
    plain = posixpath.normpath(subfolder)
    return None if plain == "." else plain
