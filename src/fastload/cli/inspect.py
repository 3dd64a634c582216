"""``fastload inspect MODEL``: what it holds, from the headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastload
from fastload.cli.model import add_model, add_settings, parse_settings
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.errors import escaped

if TYPE_CHECKING:
    import argparse

HELP = "list tensors, dtypes, shapes, shards and their digests; reads headers only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a model, and the settings."""
    add_model(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or the facts as JSON."""
    found = fastload.inspect(
        arguments.model,
        revision=arguments.revision,
        subfolder=arguments.subfolder,
        variant=arguments.variant,
        options=parse_settings(arguments),
    )
    if arguments.as_json:
        print(show_json(found.to_dict()))
        return
    rows = [
        (escaped(name), tensor.dtype, str(list(tensor.shape)), show_bytes(tensor.nbytes), escaped(tensor.shard))
        for name, tensor in found.tensors.items()
    ]
    print(show_table([("tensor", "dtype", "shape", "bytes", "shard"), *rows]))
    print()
    shards = [
        (escaped(s.name), str(s.tensors), show_bytes(s.nbytes), s.evidence, s.digest or "-") for s in found.shards
    ]
    print(show_table([("shard", "tensors", "bytes", "evidence", "digest"), *shards]))
    print()
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items()) or "no tensors"
    print(f"{len(found.tensors)} tensors ({dtypes}), {show_bytes(found.nbytes)}")
    for key, value in found.metadata.items():
        print(f"metadata {escaped(key)}: {escaped(value)}")
