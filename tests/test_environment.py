"""No process that fastload starts is given the token."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastload
from fastload._read import gds_verdict
from fastload._read.gds_verdict import Question, ask_probe
from fastload._settings.environment import child_environment
from fastload.ops.bench.checkpoint import list_tiny, write_checkpoint
from fastload.ops.bench.files import Trial, list_files
from fastload.ops.bench.measure import Job
from fastload.ops.bench.process import run_job

TOKEN = "hf_SECRET"  # noqa: S105 - of nobody
STARTS = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OTHER_WAYS = {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "startfile"}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)


def test_all_but_the_token_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    kept = {name: text for name, text in os.environ.items() if TOKEN not in text}
    assert child_environment() == kept
    assert child_environment({"HF_TOKEN": TOKEN, "A": "1"}) == {"A": "1"}


def test_the_probe_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "import os, json; print(json.dumps({'is_on': True, 'reason': repr(dict(os.environ))}))"
    monkeypatch.setattr(gds_verdict, "_CHILD", said)
    reason = ask_probe(Question(path="/m", ordinal=0)).reason
    assert "PATH" in reason and TOKEN not in reason


@pytest.mark.parametrize("is_given", [False, True])
def test_a_measurement_has_no_token(tmp_path: Path, *, is_given: bool) -> None:
    write_checkpoint(str(tmp_path), list_tiny(4), shards=1)
    seen: list[bytes] = []

    def look(_: object) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        seen.extend(Path(f"/proc/{child}/environ").read_bytes() for child in children)

    job = Job("read-buffered-1", Trial(list_files(str(tmp_path))), None)
    run_job(job, look, timeout_s=60, variables=os.environ if is_given else None)
    assert any(b"PATH=" in environ for environ in seen)
    assert not any(TOKEN.encode() in environ for environ in seen)


def test_those_that_write_a_checkpoint_have_no_token(tmp_path: Path) -> None:
    """A Python that notes its environment stands for this one."""
    noted = tmp_path / "noted"
    noted.mkdir()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nenv > {noted}/$$\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    code = "import sys; sys.executable = sys.argv[1]; from fastload.ops.bench.checkpoint import list_llama, "
    code += "write_checkpoint; write_checkpoint(sys.argv[2], list_llama(4 << 20), shards=2, processes=2)"
    subprocess.run([sys.executable, "-c", code, python, tmp_path / "made"], check=True)
    texts = [path.read_text() for path in noted.iterdir()]
    assert len(texts) >= 2 and not any(TOKEN in text for text in texts)


def _find_starts(path: Path) -> list[str]:
    """The calls in a file that start a process, other than with ``env=child_environment(…)``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                f"{path.name}: import {name}" for name in names if name.startswith(("multiprocessing", "ProcessPool"))
            ]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if owner == "os" and (name in OTHER_WAYS or name.startswith(("exec", "spawn"))):
            found.append(f"{path.name}: os.{name}")
        if owner == "subprocess" and name in STARTS:
            given = [ast.unparse(word.value) for word in node.keywords if word.arg == "env"]
            if not any(text.startswith("child_environment(") for text in given):
                found.append(f"{path.name}:{node.lineno}: subprocess.{name}")
    return found


def test_every_child_is_started_so() -> None:
    package = Path(fastload.__file__).parent
    files = sorted(package.rglob("*.py"))
    assert [start for file in files for start in _find_starts(file)] == []
    froms = [file.name for file in files if "from subprocess import" in file.read_text()]
    assert not froms, "imported by its module's name, so that this test sees it"
