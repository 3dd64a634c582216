"""``vllm serve NAME --load-format fastload``, as a user runs it: processes, HTTP, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from vllm.lora.request import LoRARequest

from engines import engine
from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from tiny_models import PROMPTS, WORDS, make_adapter
from vllm import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines import Engines

REPO = "org/tiny"
_READY_S = 240.0


@contextmanager
def serving(name: str, log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server of ``name`` and its address; interrupted when the ``with`` ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = [sys.executable, str(Path(sys.executable).with_name("vllm")), "serve", name, "--load-format", "fastload"]
    shape = ["--enforce-eager", "--max-model-len", "128", "--dtype", "bfloat16"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*vllm, *shape, *address, *arguments], stdout=out, stderr=subprocess.STDOUT, env=_environment()
        ) as server,
    ):
        try:
            yield server, f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)


def _environment() -> dict[str, str]:
    """Without the engine in the front end's process, and online."""
    return {key: value for key, value in os.environ.items() if key != "VLLM_ENABLE_V1_MULTIPROCESSING"}


def _wait_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            _get(f"{url}/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"not ready:\n{log.read_text()[-5000:]}")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return str(reply.read().decode())


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_a_name_only_on_the_hub_is_served_under_that_name(
    engines: Engines, llama: Path, tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engines.expected(str(llama)).tokens[0]
    monkeypatch.setenv("FASTLOAD_TIERS", "local,hub")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "unused"))
    log = tmp_path / "serve.log"
    with HubServer({REPO: Repo({path.name: path.read_bytes() for path in llama.iterdir()})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with serving(REPO, log) as (server, url):
            _wait_ready(server, url, log)
            assert [model["id"] for model in json.loads(_get(f"{url}/v1/models"))["data"]] == [REPO]
            asked = {"model": REPO, "prompt": PROMPTS[0], "max_tokens": 8, "temperature": 0, "logprobs": 1}
            words = _post(f"{url}/v1/completions", asked)["choices"][0]["logprobs"]["tokens"]
            assert [int(word.strip().removeprefix("w")) for word in words] == [t for t in expected if t < WORDS]
            assert f'vllm:generation_tokens_total{{engine="0",model_name="{REPO}"}} 8.0' in _get(f"{url}/metrics")
    assert server.returncode == 0
    text = log.read_text()
    assert "Loading weights took" in text
    assert "evidence manifest" in text


def test_an_adapter_is_served_offline_beside_its_base(
    engines: Engines, llama: Path, hub_cache: Path, tmp_path: Path
) -> None:
    """Both by name, from the hub's cache, where ``fastload warm`` puts them."""
    adapter = make_adapter(tmp_path / "adapter")
    for name, folder in ((REPO, llama), ("org/adapter", adapter)):
        write_cache(hub_cache, name, COMMIT, {path.name: path.read_bytes() for path in folder.iterdir()})
    log = tmp_path / "serve.log"
    lora = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", "mine=org/adapter")
    with serving(REPO, log, *lora) as (server, url):
        _wait_ready(server, url, log)
        assert [model["id"] for model in json.loads(_get(f"{url}/v1/models"))["data"]] == [REPO, "mine"]
        asked = {"prompt": PROMPTS[0], "max_tokens": 8, "temperature": 0, "return_token_ids": True}
        said = {
            name: _post(f"{url}/v1/completions", {**asked, "model": name})["choices"][0]["token_ids"]
            for name in (REPO, "mine")
        }
    with engine(str(llama), "safetensors", enable_lora=True, max_lora_rank=8) as llm:
        request = LoRARequest("mine", 1, str(adapter))
        sampling = SamplingParams(temperature=0, max_tokens=8)
        expected = llm.generate(PROMPTS[:1], sampling, use_tqdm=False, lora_request=request)[0].outputs[0].token_ids
    assert said == {REPO: engines.expected(str(llama)).tokens[0], "mine": list(expected)}
    assert said[REPO] != said["mine"]


def test_a_wrong_byte_ends_the_server_and_names_the_file(
    llama: Path, tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    shard = write_cache(tiers / "local", REPO, COMMIT, files) / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    log = tmp_path / "serve.log"
    with serving(REPO, log) as (server, _):
        assert server.wait(_READY_S) not in {0, None}
    assert "fastload.errors.IntegrityError" in log.read_text()
    assert str(shard) in log.read_text()
