"""The arguments that name a model, and those that are settings: the same for every verb that takes them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from fastload.options import COMMAND_LINE, Options, flag_of, parse_options

if TYPE_CHECKING:
    import argparse

_SETTINGS = {
    "local": "the local tier, a folder in the layout of the hub's cache",
    "shared": "mounts shared with others, separated by colons",
    "tiers": "what may be asked: some of local,shared,hub",
    "manifests": "a folder for manifests of what cannot hold its own, such as a read-only mount",
    "verify": "auto: by the best evidence there is; require: fail without any; off",
    "signature_key": "a public key in PEM: load and bring nothing that it has not signed",
    "write_through": "on, off or auto: keep on the local tier what is loaded from a lower one",
    "transfer": "ranged, or hub to let huggingface_hub bring the files",
    "local_max_bytes": "what may be kept on the local tier, such as 500Gi",
    "min_free": "what must stay free there, such as 5%% or 50Gi",
    "max_rate": "bytes a second to read from a lower tier, or from any to verify it, such as 500M",
    "deadline": "when to give up, such as 15m",
    "require_pinned": "on: refuse names without a commit",
    "reader": "auto, gds, direct, buffered or mmap",
    "gds": "on, off or auto: GPUDirect Storage, where kvikio is installed",
    "staging_bytes": "host memory on the way to a device, such as 256Mi",
    "device_bytes": "what may be taken of the device's memory, such as 70Gi",
}


_SWITCH = "require_pinned"
"""The setting that a bare flag turns on."""


def add_name(parser: argparse.ArgumentParser) -> None:
    """MODEL and its revision."""
    parser.add_argument("model", metavar="MODEL", help="org/name[@revision], an alias, a folder's name, or a path")
    parser.add_argument("--revision", metavar="REV", help="a branch, tag or commit")


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, and which part of it."""
    add_name(parser)
    parser.add_argument("--subfolder", metavar="DIR", help="where in the folder the weights are")
    parser.add_argument("--variant", metavar="NAME", help="such as fp16, for model.fp16.safetensors")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting."""
    group = parser.add_argument_group("settings (also FASTLOAD_<NAME> and config.toml)")
    for field in fields(Options):
        flag = flag_of(field.name)
        if field.name == _SWITCH:
            group.add_argument(flag, metavar="on|off", nargs="?", const="on", help=_SETTINGS[field.name])
        else:
            group.add_argument(flag, metavar="VALUE", help=_SETTINGS[field.name])


def parse_settings(arguments: argparse.Namespace) -> Options:
    """The settings that :func:`add_settings` added.

    Raises:
        UsageError: a value that cannot be meant; names the flag.
    """
    flags = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    return parse_options({name: value for name, value in flags.items() if value is not None}, COMMAND_LINE)
