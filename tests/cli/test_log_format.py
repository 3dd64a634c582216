"""``--log-format json``: all of stderr is records, whatever it is that speaks."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fastload.cli import main
from fastload.cli.log import JsonLines, find_log_format
from forked import run_fastload
from stored_models import COMMIT, model_files, write_cache
from warming import MIB, Tiers, environment, large_shard

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def _records(text: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        assert {"time", "level", "message"} <= set(record)
    return records


def _run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return run_fastload(words, environment(**more), timeout=60)


def test_a_failure_is_one_record_with_its_facts() -> None:
    done = _run("load", "/nowhere", "--log-format", "json", "--json")
    (record,) = _records(done.stderr)
    assert record["level"] == "error"
    assert record["error"]["type"] == "ModelNotFoundError"
    assert record["exit_code"] == done.returncode == 12
    assert json.loads(done.stdout)["exit_code"] == 12


def test_so_is_what_is_wrong_with_the_arguments() -> None:
    (record,) = _records(_run("load", "x", "--nonsense", "--log-format=json").stderr)
    assert record["exit_code"] == 2
    done = _run("load", "x", "--log-format", "yaml")
    assert done.returncode == 2
    assert "invalid choice: 'yaml'" in done.stderr


def test_so_are_the_logger_and_progress(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, "org/name", COMMIT, {"model.safetensors": large_shard(2 * MIB, 0), **model_files()})
    done = tiers.run("warm", "org/name", "org/nowhere", "org/nobody", "--log-format", "json")
    assert done.returncode == 12
    assert [record["level"] for record in _records(done.stderr)] == ["error", "error"]
    done = tiers.run("load", "org/name", "--log-format", "json")
    (record,) = _records(done.stderr)
    assert record["logger"] == "fastload"
    assert "evidence manifest" in record["message"]


def test_lines_are_records_however_they_are_written() -> None:
    below = io.StringIO()
    lines = JsonLines(below)
    print("fastload: one", "and", "more", file=lines)
    print(file=lines)
    lines.write("two\nthr")
    lines.write("ee\x1b[2J")
    assert [record["message"] for record in _records(below.getvalue())] == ["one and more", "two"]
    lines.flush_rest()
    assert _records(below.getvalue())[-1]["message"] == "three\x1b[2J"
    assert not lines.isatty()
    assert lines.writable()


def test_that_the_stream_below_is_closed_hinders_no_end() -> None:
    """Python closes what it frees, and since 3.13 says what that raises."""
    below = io.TextIOWrapper(io.BytesIO())
    lines = JsonLines(below)
    below.close()
    lines.close()
    assert lines.closed


def test_a_caller_gets_his_stream_and_logger_back(capsys: pytest.CaptureFixture[str]) -> None:
    before, logger = sys.stderr, logging.getLogger("fastload")
    handlers, level = list(logger.handlers), logger.level
    assert main(["resolve", "/nowhere", "--log-format", "json"]) == 12
    assert sys.stderr is before
    assert (logger.handlers, logger.level) == (handlers, level)
    assert len(_records(capsys.readouterr().err)) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["load", "x"], "text"),
        (["load", "x", "--log-format", "json"], "json"),
        (["load", "--log-format=json", "x"], "json"),
        (["load", "x", "--log-format"], "text"),
    ],
)
def test_the_format_is_known_before_the_words_are(words: list[str], expected: str) -> None:
    assert find_log_format(words) == expected
