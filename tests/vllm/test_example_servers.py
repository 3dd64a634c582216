"""The commands of examples/k8s and docs/leave.md, as vLLM's own server reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

if TYPE_CHECKING:
    from argparse import Namespace

_CHECKOUT = Path(__file__).parents[2]


def _list_servers() -> dict[str, dict[str, Any]]:
    """The container vllm of each example that has one."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((_CHECKOUT / "examples" / "k8s").glob("*/serve.yaml")):
        (server,) = (
            container
            for each in yaml.safe_load_all(path.read_text())
            for container in each["spec"]["template"]["spec"]["containers"]
            if container["name"] == "vllm"
        )
        found[path.parent.name] = server
    return found


SERVERS = _list_servers()


def _parse(words: list[str]) -> Namespace:
    """As the command ``vllm`` does; the model is the first of ``words``."""
    verb = ServeSubcommand()
    parser = FlexibleArgumentParser()
    verb.subparser_init(parser.add_subparsers())
    arguments: Namespace = parser.parse_args(["serve", *words])
    verb.validate(arguments)
    arguments.model = arguments.model_tag
    return arguments


@pytest.mark.parametrize("example", SERVERS)
def test_the_server_of_an_example(example: str) -> None:
    server = SERVERS[example]
    assert server["command"] == ["vllm", "serve"]
    environment = {each["name"]: each["value"] for each in server["env"]}
    words = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], word) for word in server["args"]]
    arguments = _parse(words)
    engine = AsyncEngineArgs.from_cli_args(arguments)
    assert (engine.model, engine.load_format) == (environment["MODEL"], "fastload")
    assert engine.tensor_parallel_size == int(server["resources"]["limits"]["nvidia.com/gpu"])
    (port,) = server["ports"]
    assert arguments.port == port["containerPort"]


def test_the_server_without_fastload() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (_CHECKOUT / "docs/leave.md").read_text(), re.MULTILINE | re.DOTALL)
    engine = AsyncEngineArgs.from_cli_args(_parse(yaml.safe_load(block)["args"]))
    model = {each["name"]: each["value"] for each in SERVERS["hostpath"]["env"]}["MODEL"]
    assert f"{engine.model}@{engine.revision}" == model
    assert engine.load_format == "auto"


def test_a_flag_that_vllm_has_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(["org/name", "--load-fromat", "fastload"])
    assert "--load-fromat" in capsys.readouterr().err
