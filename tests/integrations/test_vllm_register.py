"""The plugin in a process of vLLM: light, silent, and never in the way of other load formats."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEAVY = ("torch", "numpy", "vllm", "huggingface_hub", "transformers", "tqdm", "fastload._load", "fastload.options")


def _run(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    lines = ["import sys", *([f"sys.path.insert(0, {str(path)!r})"] if path else []), code]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)


def _write(folder: Path, files: dict[str, str]) -> None:
    """A stand-in for vLLM, with as much of it as a test needs."""
    for name, text in files.items():
        path = folder / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for above in path.relative_to(folder).parents[:-1]:
            (folder / above / "__init__.py").touch()
        path.write_text(text)


def test_the_entry_point_leads_to_it() -> None:
    points = importlib.metadata.entry_points(group="vllm.general_plugins", name="fastload")
    (point,) = points
    assert point.load().__name__ == "register"


def test_registering_imports_nothing() -> None:
    code = f"""
from fastload.integrations.vllm import register
register()
print([name for name in {_HEAVY} if name in sys.modules])
"""
    assert _run(code).stdout == "[]\n"


def test_a_vllm_without_what_is_needed_goes_on(tmp_path: Path) -> None:
    """Such as one that is older, or newer, than what is known."""
    _write(tmp_path, {"engine/arg_utils.py": "class EngineArgs: pass\n", "model_executor/model_loader/x.py": ""})
    code = """
from fastload.integrations.vllm import register
register()
import vllm.engine.arg_utils, vllm.model_executor.model_loader
print(vars(vllm.engine.arg_utils).keys() - {"EngineArgs"} - {name for name in dir() if name[:2] == "__"})
"""
    done = _run(code, path=tmp_path)
    assert "give paths" in done.stderr
    assert "could not be set up; other load formats are not affected" in done.stderr
    assert "get_model_path" not in done.stdout


_LOGS = """
import logging
from fastload.integrations.vllm import register
register()
import vllm
shown = logging.getLogger("vllm")
shown.addHandler(logging.StreamHandler(sys.stdout))
shown.setLevel("INFO")
shown.propagate = False
{}
import vllm.engine.arg_utils, vllm.model_executor.model_loader
own = logging.getLogger("fastload")
own.debug("detail")
own.info("summary")
own.warning("warned")
"""


def test_what_fastload_logs_is_in_the_log_of_vllm_once(tmp_path: Path) -> None:
    """Python's last resort shows warnings alone, without a time or the name of the process."""
    _write(tmp_path, {"engine/arg_utils.py": "class EngineArgs: pass\n", "model_executor/model_loader/x.py": ""})
    lines = _run(_LOGS.format(""), path=tmp_path).stdout.splitlines()
    assert [line for line in lines if line in {"detail", "summary", "warned"}] == ["summary", "warned"]


def test_but_not_where_somebody_has_set_up_a_log_of_its_own(tmp_path: Path) -> None:
    _write(tmp_path, {"engine/arg_utils.py": "class EngineArgs: pass\n", "model_executor/model_loader/x.py": ""})
    done = _run(_LOGS.format('logging.getLogger("fastload").addHandler(logging.NullHandler())'), path=tmp_path)
    assert "warned" not in done.stdout
