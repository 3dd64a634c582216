"""The arguments that name a model, and those that are settings: the same for every verb that takes them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from fastload.options import Options

if TYPE_CHECKING:
    import argparse

_SETTINGS = {
    "reader": "auto, direct, buffered or mmap",
    "staging_bytes": "host memory on the way to a device, such as 256Mi",
    "device_bytes": "what may be taken of the device's memory, such as 70Gi",
}


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, and which part of it."""
    parser.add_argument("model", metavar="MODEL", help="path of a folder, a .safetensors file or an index")
    parser.add_argument("--subfolder", metavar="DIR", help="where in the folder the weights are")
    parser.add_argument("--variant", metavar="NAME", help="such as fp16, for model.fp16.safetensors")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting."""
    group = parser.add_argument_group("settings (also FASTLOAD_<NAME> and config.toml)")
    for field in fields(Options):
        group.add_argument(f"--{field.name.replace('_', '-')}", metavar="VALUE", help=_SETTINGS[field.name])


def parse_settings(arguments: argparse.Namespace) -> Options:
    """The settings that :func:`add_settings` added."""
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
