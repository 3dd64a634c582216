"""The public surface: light to import, exact, typed."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastload

_HEAVY = ("torch", "numpy", "huggingface_hub", "kvikio", "tqdm", "safetensors", "urllib3", "blake3")
_ROOT = Path(fastload.__file__).parent


def test_importing_is_light() -> None:
    code = f"import fastload, sys; print([name for name in {_HEAVY} if name in sys.modules], len(sys.modules))"
    heavy, _, _ = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.partition("]")
    assert heavy == "["


def test_importing_takes_less_than_60_ms() -> None:
    """CPU time beyond bare Python's, the best of several processes: a busy machine adds to some."""
    beginnings = [_cpu_seconds("pass", "import fastload") for _ in range(7)]
    bare, imported = (min(seconds) for seconds in zip(*beginnings, strict=True))
    assert imported - bare < 0.060


def _cpu_seconds(*programs: str) -> list[float]:
    """What a fresh interpreter takes for each."""
    taken = []
    for program in programs:
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        taken.append(usage.ru_utime + usage.ru_stime)
    return taken


@pytest.mark.parametrize("name", fastload.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(fastload, name).__doc__


def test_public_names_are_sorted_and_complete() -> None:
    assert fastload.__all__ == sorted(fastload.__all__)
    assert set(fastload.__all__) == set(fastload._HOME_OF)
    assert set(fastload.__all__) <= set(dir(fastload))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastload.nothing


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse((_ROOT / "__init__.py").read_text())
    seen = {
        alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: seen[name] for name in fastload.__all__} == fastload._HOME_OF


def test_version_is_the_distributions() -> None:
    assert fastload.__version__ == importlib.metadata.version("fastload-llm")


def test_package_is_typed() -> None:
    assert (_ROOT / "py.typed").exists()


def test_only_one_module_reads_the_environment() -> None:
    reading = re.compile(r"\benvironb?\b|\bgetenvb?\b")
    readers = [path.name for path in _ROOT.rglob("*.py") if reading.search(path.read_text())]
    assert readers == ["environment.py"]


def test_only_the_command_line_prints_or_exits() -> None:
    for path in _ROOT.rglob("*.py"):
        if "cli" in path.parts or path.name == "__main__.py":
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert not calls & {"print", "exit", "sys.exit", "os._exit"}, path


@pytest.mark.parametrize(
    "error", ["ImportError('undefined symbol: x')", "OSError('libcublas.so.12: cannot open shared object file')"]
)
def test_a_broken_torch_is_said_plainly(tmp_path: Path, error: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(f"raise {error}")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import fastload
try:
    fastload.load({str(tmp_path)!r})
except fastload.UnsupportedError as exc:
    print(exc)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot be imported: " in said
    assert "python -c 'import torch'" in said


def test_torch_missing_is_said_plainly(tmp_path: Path) -> None:
    """As in an init container, which has no torch."""
    code = """
import sys
import tomllib
sys.modules["torch"] = None
import fastload
try:
    fastload.load("/nowhere")
except fastload.UnsupportedError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"pip install '{_wanted_by('torch')}'" in run.stdout


def _wanted_by(extra: str) -> str:
    """What an extra installs: a command with it runs whether fastload-llm is on an index or not."""
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    (wanted,) = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"][extra]
    return str(wanted)


def test_what_a_signature_needs_is_what_its_extra_installs() -> None:
    source = (_ROOT / "_verify" / "dsse.py").read_text()
    assert f"pip install '{_wanted_by('signing')}'" in source
