"""The command as a user meets it: a process, its streams and its exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fastload
from fastload.cli import entry, main
from fastload.cli.load import show_report
from forked import run_fastload, start_python
from stopwatch import Stopwatch
from writing import pack

FASTLOAD = [sys.executable, "-m", "fastload"]


def _run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*FASTLOAD, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_load_prints_the_table_and_the_report(real_model: Path) -> None:
    run = _run("load", real_model)
    assert run.returncode == 0
    assert run.stderr == ""
    for part in (
        "float32  103",
        "int64    1",
        "86.65 MiB",
        "GB/s",
        "stages",
        "stream",
        "reader",
        "bound by",
        "evidence",
    ):
        assert part in run.stdout


def test_a_log_of_load_is_told_how_far_it_is(
    real_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastload._progress._LINE_EVERY_S", 0.0)
    assert main(["load", str(real_model)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"fastload: 0\.\d of 0\.1 GiB \(\d+%\), \d+\.\d\d GB/s", line) for line in lines)
    assert main(["load", str(real_model), "--no-progress"]) == 0
    assert capsys.readouterr().err == ""


def test_load_as_json(real_model: Path) -> None:
    facts = json.loads(run_fastload(["load", real_model, "--json", "--reader", "buffered"]).stdout)
    assert facts["schema"] == 1
    assert facts["reader"] == "buffered"
    assert facts["tensors"] == 104


def test_keywords_of_load_are_flags(real_model: Path) -> None:
    flags = ("--tensors", "encoder.layer.0.*", "--tensors", "pooler.*", "--dtype", "BF16", "--staging-bytes", "32Mi")
    words = ["load", real_model, *flags, "--device", "cpu", "--json", "--no-progress"]
    facts = json.loads(run_fastload(words).stdout)
    assert facts["tensors"] == 18


def test_settings_come_from_the_environment_too(real_model: Path) -> None:
    run = run_fastload(["load", real_model, "--json"], os.environ | {"FASTLOAD_READER": "mmap"})
    facts = json.loads(run.stdout)
    assert facts["reader"] == "mmap"


def test_inspect(real_model: Path) -> None:
    run = _run("inspect", real_model)
    assert run.returncode == 0
    assert "pooler.dense.weight" in run.stdout
    assert "104 tensors (103 F32, 1 I64), 86.65 MiB" in run.stdout
    facts = json.loads(_run("inspect", real_model, "--json").stdout)
    assert facts["tensors"]["pooler.dense.weight"] == {
        "dtype": "F32",
        "shape": [384, 384],
        "nbytes": 384 * 384 * 4,
        "shard": "model.safetensors",
    }


def test_inspect_escapes_names(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({"a\x1b[2J\nb": ("U8", [1], b"x")}))
    out = _run("inspect", tmp_path).stdout
    assert "\x1b" not in out
    assert r"a\x1b[2J\nb" in out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "kind"),
    [
        (["load"], 2, "UsageError"),
        (["fly", "x"], 2, "UsageError"),
        (["load", "./x", "--reader", "fast"], 2, "UsageError"),
        (["load", "/nowhere/at/all"], 12, "ModelNotFoundError"),
        (["inspect", "/nowhere/at/all"], 12, "ModelNotFoundError"),
        (["load", "broken.safetensors"], 17, "FormatError"),
        (["load", "good.safetensors", "--device", "cuda:77"], None, None),
        (["load", "huge.safetensors"], 0, None),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: list[str], exit_code: int | None, kind: str | None) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    save_file({"a": torch.ones(2)}, tmp_path / "good.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "huge.safetensors")
    run = run_fastload([*arguments, "--json"], cwd=tmp_path)
    facts = json.loads(run.stdout)
    if exit_code is None:  # with a GPU there is no such device; without one there is no CUDA
        assert (run.returncode, facts["error"]["type"]) in {(2, "UsageError"), (20, "UnsupportedError")}
        return
    assert run.returncode == exit_code
    if kind:
        assert facts["exit_code"] == exit_code
        assert facts["error"]["type"] == kind
        assert facts["error"]["message"] in run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("load ./x --reader zzz", "--reader: no reader 'zzz'"),
        ("load ./x --staging-bytes 5x", "--staging-bytes: '5x' is no size"),
        ("inspect ./x --max-rate 0", "--max-rate: a rate of 0 lets nothing through"),
        ("warm ./x --deadline soon", "--deadline: 'soon' is no duration"),
        ("doctor ./x --verify maybe", "--verify: no verify 'maybe'"),
        ("warm ./x --jitter soon", "argument --jitter: 'soon' is no duration"),
        ("warm --list ./x --every soon", "argument --every: 'soon' is no duration"),
        ("warm --list ./x --every 0", "--every 0 s is no pause"),
        ("prune --max-bytes much", "argument --max-bytes: 'much' is no size"),
        ("bench --size much", "argument --size: 'much' is no size"),
        ("bench --gpus 8 --shared-rate 0", "argument --shared-rate: a rate of 0 lets nothing through"),
    ],
)
def test_a_bad_value_is_refused_with_the_flag_as_it_was_typed(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert f"fastload: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["load", "inspect", "resolve"])
def test_a_bad_value_of_a_variable_is_refused_with_the_variable(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTLOAD_READER", "zzz")
    assert main([verb, "./x"]) == 2
    assert "fastload: FASTLOAD_READER in the environment: no reader 'zzz'" in capsys.readouterr().err


def test_help_lists_verbs_and_exit_codes() -> None:
    run = _run("--help")
    assert run.returncode == 0
    for part in ("load", "inspect", "13 IntegrityError", "22 UnfitError", "143 SIGTERM"):
        assert part in run.stdout


def test_version() -> None:
    assert _run("--version").stdout.startswith("fastload 0.")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_signals(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    """While it waits for storage that does not answer: the system's call, nothing of ours."""
    save_file({f"t{i}": torch.ones(4 << 20) for i in range(8)}, tmp_path / "model.safetensors")
    code = """
import os, signal, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and children inherit that
real = os.preadv
def slow(*arguments):
    if threading.current_thread() is not threading.main_thread():
        os.write(2, b"reading\\n")
        time.sleep(300)
    return real(*arguments)
os.preadv = slow
from fastload.cli import main
sys.exit(main())
"""
    with start_python(["-c", code, "load", str(tmp_path), "--json", "--reader", "buffered"], torch=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "reading\n"
        with Stopwatch(process.pid) as watch:
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        assert watch.seconds < 2
    assert process.returncode == exit_code
    assert json.loads(out)["exit_code"] == exit_code
    assert "Traceback" not in err


_AS_A_SHELL_STARTS_IT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Under nohup Ctrl-C is ignored, and children inherit that."""


@pytest.mark.parametrize("imported", ["fastload.cli.entry", "fastload.errors", "fastload.cli.load"])
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_first_moments_is_told_as_any_other(
    number: signal.Signals, exit_code: int, imported: str
) -> None:
    """While the command's own modules are imported."""
    code = f"""
import os, sys
class Signals:
    def find_spec(self, name, path, target=None):
        if name == "{imported}":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Signals())
from fastload.cli import command
command()
"""
    command = [sys.executable, "-c", _AS_A_SHELL_STARTS_IT + code, "load", "/nowhere/at/all", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, "Traceback" in run.stderr) == (exit_code, False), run.stderr
    assert json.loads(run.stdout)["exit_code"] == exit_code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_moments_leaves_no_traceback(number: signal.Signals, real_model: Path) -> None:
    code = f"""
import atexit, os
atexit.register(lambda: os.kill(os.getpid(), {int(number)}))
from fastload.cli import command
command()
"""
    command = [sys.executable, "-c", _AS_A_SHELL_STARTS_IT + code, "inspect", str(real_model), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (-number, "")
    assert len(json.loads(run.stdout)["tensors"]) == 104


def test_a_second_signal_adds_nothing(tmp_path: Path) -> None:
    """Whoever insists while the first one is being told."""
    (tmp_path / "model.safetensors").write_bytes(pack({"w": ("U8", [1], b"\0")}))
    code = """
import os, signal
from fastload.cli import command, entry, inspect
tell = entry.tell_failure
def insist(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    tell(*arguments)
entry.tell_failure = insist
inspect.run = lambda _arguments: os.kill(os.getpid(), signal.SIGINT)
command()
"""
    command = [sys.executable, "-c", _AS_A_SHELL_STARTS_IT + code, "inspect", str(tmp_path), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (130, "fastload: interrupted\n")
    assert json.loads(run.stdout)["exit_code"] == 130


def test_a_signal_that_somebody_takes_for_a_failure_of_his_own_is_still_one(tmp_path: Path) -> None:
    """As some modules do that are imported meanwhile."""
    code = """
import os, signal
from fastload.cli import command, inspect
def fail(_arguments):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:
        raise ImportError("broken, it seems") from error
inspect.run = fail
command()
"""
    command = [sys.executable, "-c", code, "inspect", str(tmp_path), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (143, "fastload: terminated\n")


def test_a_program_that_calls_main_has_its_signals_back(tmp_path: Path) -> None:
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [*map(signal.getsignal, ending), signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    assert main(["inspect", str(tmp_path)]) == 17
    assert [*map(signal.getsignal, ending), signal.pthread_sigmask(signal.SIG_BLOCK, ())] == before


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_do_not_wait_for_the_import_of_torch(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it is ignored, and children inherit that
class Later:
    def find_spec(self, name, path, target=None):
        if name == "torch.functional":  # behind the libraries: the import is not over before the signal has come
            time.sleep(60)
sys.meta_path.insert(0, Later())
from fastload.cli import main
exit_code = main()
print("torch" in sys.modules, file=sys.stderr)
sys.exit(exit_code)
"""
    command = [sys.executable, "-c", code, "load", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "libtorch" not in maps.read_text() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert json.loads(out)["exit_code"] == exit_code
    assert err.endswith("\nFalse\n"), "an import that fails leaves nothing in sys.modules; this one was waited for"


def test_reader_of_stdout_that_leaves_early_is_no_error(real_model: Path) -> None:
    run = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m fastload inspect {real_model} | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.startswith("tensor")
    assert run.stderr == ""


def test_reason_is_left_in_the_termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(entry, "_TERMINATION_LOG", str(log))
    assert main(["load", "/nowhere/at/all"]) == 12
    assert not log.exists()
    log.touch()
    assert main(["load", "/nowhere/at/all"]) == 12
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["error"]["type"] == "ModelNotFoundError"


_WITH_A_BUG = """
import sys
from fastload.cli import command, entry, inspect
entry._TERMINATION_LOG = sys.argv.pop(1)
def run(_arguments):
    raise KeyError("nobody thought of this")
inspect.run = run
command()
"""


@pytest.mark.parametrize("flags", [(), ("--json",), ("--log-format", "json")])
def test_a_bug_has_an_exit_code_a_traceback_and_a_reason_too(tmp_path: Path, flags: tuple[str, ...]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    command = [sys.executable, "-c", _WITH_A_BUG, str(log), "inspect", str(tmp_path), *flags]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Traceback" in run.stderr and "line 6, in run" in run.stderr
    reason = json.loads(log.read_text())
    assert reason["exit_code"] == 1 and reason["error"]["type"] == "KeyError"
    assert "nobody thought of this" in reason["error"]["message"] and reason["error"]["where"] == ["<string>:6"]
    if "--json" in flags:
        assert json.loads(run.stdout) == {"schema": 1, **reason}
    if "--log-format" in flags:
        lines = [json.loads(line) for line in run.stderr.splitlines()]
        assert "Traceback" in lines[0]["traceback"]
        assert lines[-1]["exit_code"] == 1


def test_an_installation_that_lacks_a_library_says_which_in_the_termination_log(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    program = """
import sys
import fastload.cli.termination
fastload.cli.termination.TERMINATION_LOG = sys.argv.pop(1)
sys.modules["blake3"] = None
fastload.cli.command()
"""
    command = [sys.executable, "-c", program, str(log), "inspect", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "blake3" in run.stderr
    reason = json.loads(log.read_text())
    assert reason["exit_code"] == 1 and "blake3" in reason["error"]["message"]


def test_a_flag_is_written_out(real_model: Path) -> None:
    run = _run("inspect", real_model, "--js")
    assert run.returncode == 2
    assert "--js" in run.stderr


def test_a_stdout_that_takes_nothing_is_an_error_and_no_traceback(real_model: Path) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        run = subprocess.run(
            [*FASTLOAD, "inspect", real_model], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 14
    assert "no space left" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("words", [("--help",), ("load", "--help"), ("--version",)])
def test_so_is_one_that_does_not_take_what_argparse_prints(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        run = subprocess.run([*FASTLOAD, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 14
    assert "no space left" in run.stderr


@pytest.mark.parametrize("words", [("verify",), ("doctor",), ("resolve", "/nowhere/at/all")])
@pytest.mark.parametrize("deaf", [">/dev/full", "> >(true)"])
def test_what_was_found_wrong_is_told_by_the_exit_code_also_where_nobody_reads(
    tmp_path: Path, words: tuple[str, ...], deaf: str
) -> None:
    """As in ``fastload verify NAME | head -1`` with pipefail: a damaged model must not pass."""
    verb, *names = words
    (tmp_path / "model.safetensors").write_bytes(pack({"w": ("U8", [1], b"\0")})[:-1])
    words = (verb, *(names or [str(tmp_path)]))
    alone = run_fastload(words)
    command = shlex.join([*FASTLOAD, *words])
    deafened = f"exec 3>&1; exec {deaf}; sleep 0.2; {command}"
    run = subprocess.run(["/bin/bash", "-c", deafened], capture_output=True, text=True, check=False)
    assert run.returncode == alone.returncode in {12, 13, 22}
    assert run.stderr == alone.stderr != ""


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("deaf", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "| true", "2>&1 | true"])
def test_a_failure_that_nobody_can_be_told_keeps_its_exit_code_and_its_reason(
    tmp_path: Path, deaf: str, log_format: str
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    program = """if True:
        import sys
        from fastload.cli import entry, main
        entry._TERMINATION_LOG = sys.argv[1]
        sys.exit(main(["inspect", "/nowhere/at/all", "--json", "--log-format", sys.argv[2]]))
    """
    script = f"set -o pipefail; {shlex.join([sys.executable, '-c', program, str(log), log_format])} {deaf}"
    run = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 12, run.stderr
    assert "Traceback" not in run.stderr
    assert json.loads(log.read_text())["exit_code"] == 12


@pytest.mark.parametrize(("closed", "left"), [(">&-", "stderr"), ("2>&-", "stdout")])
def test_a_stream_that_is_closed_takes_nothing_and_gets_in_nobodys_way(closed: str, left: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({"w": ("U8", [1], b"\0")}))
    for path, code in ((tmp_path, 0), (tmp_path / "none", 12)):
        command = shlex.join([*FASTLOAD, "inspect", str(path), "--json"])
        run = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False)
        assert run.returncode == code, run.stderr
        if left == "stdout":
            assert json.loads(run.stdout).get("exit_code", 0) == code
        else:
            assert "Traceback" not in run.stderr and bool(run.stderr) == bool(code)


def test_names_that_the_terminal_cannot_spell_are_shown_by_their_code_points(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({"gewöhnlich": ("U8", [1], b"\0")}))
    run = _run("inspect", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert run.returncode == 0
    assert "gew\\xf6hnlich" in run.stdout


@pytest.mark.parametrize("verb", ["load", "inspect", "verify", "resolve", "doctor", "ls"])
def test_a_path_that_is_no_utf_8_makes_no_json_that_a_parser_refuses(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python would write lone surrogates, and a strict parser refuses all of it then."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    save_file({"a": torch.zeros(4)}, tmp_path / "model.safetensors")
    os.rename(os.fsencode(tmp_path / "model.safetensors"), folder + b"/model.safetensors")
    monkeypatch.setattr(entry, "_TERMINATION_LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    path = os.fsdecode(folder)
    words = ["ls", "--local", path] if verb == "ls" else [verb, path]
    assert main([*words, "--json", "--log-format=json"]) == 0
    assert main([*words[:-1], path + "/not-there", "--json", "--log-format=json"]) == {"ls": 0, "doctor": 22}.get(
        verb, 12
    )
    said = capfd.readouterr()
    lines = [*said.out.splitlines(), *said.err.splitlines(), *(tmp_path / "log").read_text().splitlines()]
    assert len(lines) >= (2 if verb == "ls" else 4)
    for line in lines:
        assert not re.search(r"\\ud[89a-f]", line.replace(r"\\", "")), line
        assert "\udce9" not in line


@pytest.mark.parametrize(("device", "is_said"), [("cpu", False), ("cuda:0", True)])
def test_where_digests_were_taken_is_said_of_a_device(real_model: Path, device: str, is_said: bool) -> None:  # noqa: FBT001
    report = fastload.load(real_model).report
    found = show_report(replace(report, device=device, hashed_on="cpu", hashed_reason="no compiler"))
    assert ("digested on cpu: no compiler" in found) == is_said
    assert "digested on" not in show_report(replace(report, device=device, hashed_on="none"))


@pytest.mark.parametrize("count", [0, 100, 1000])
def test_what_a_kubelet_keeps_of_a_reason_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(entry, "_TERMINATION_LOG", str(log))
    findings = tuple(
        fastload.Finding(
            path=f"model-{number:05}-of-01000.safetensors",
            block=None,
            offset=0,
            found=f"BLAKE3 {'0' * 64}",
            expected=f"BLAKE3 {'1' * 64}",
            repaired=False,
        )
        for number in range(count)
    )
    error = fastload.IntegrityError("/models/x", 0, "x" * (9000 if count == 1000 else 10), "y", findings=findings)
    assert entry._fail(error, as_json=False) == 13
    kept = json.loads(log.read_bytes()[-4096:])
    assert kept["exit_code"] == 13
    assert kept["error"]["path"] == "/models/x"
    assert bool(kept["error"].get("left_out")) == (count > 0)
    assert not count or len(kept["error"]["findings"]) < count


def test_a_verb_brings_in_what_it_needs_and_no_other(tmp_path: Path) -> None:
    code = f"""
import sys
from fastload.cli import main
main(["resolve", {str(tmp_path)!r}])
print([name for name in ("fastload.cli.resolve", "fastload.cli.bench", "fastload.ops") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['fastload.cli.resolve']"
