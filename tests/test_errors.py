"""The tree of errors: its shape, its facts, its sentences, and its way across process borders."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload import Finding, errors
from fastload.errors import (
    AuthError,
    DeadlineError,
    FastloadError,
    FormatError,
    GroupError,
    HubError,
    IntegrityError,
    LockTimeoutError,
    MemoryBudgetError,
    ModelNotFoundError,
    NetworkError,
    NoSpaceError,
    NotWritableError,
    SignatureError,
    StoreError,
    UnsupportedError,
    UsageError,
    quoted,
)
from fastload.ops.doctor.finding import UnfitError

EXAMPLES: list[tuple[FastloadError, int, str]] = [
    (UsageError("no reader 'x'", "Use one of auto"), 2, "no reader 'x'. Use one of auto"),
    (ModelNotFoundError("m", ("/a", "/b"), "Check"), 12, "no model 'm' (searched: /a, /b). Check"),
    (
        FormatError("/m", "a hole", "none", tensor="t\n"),
        17,
        "'/m': tensor 't\\n': found a hole; expected none. Fetch the file again, or ask whoever made it",
    ),
    (FormatError("/m", "a folder", "a file", hint="Move it"), 17, "'/m': found a folder; expected a file. Move it"),
    (IntegrityError("/m", 7, "x", "y", "Again"), 13, "'/m': at byte 7: found x; expected y. Again"),
    (IntegrityError("/m", 7, "x", "y", block=2), 13, "'/m': block 2 at byte 7: found x; expected y"),
    (SignatureError("/m", "x", "y"), 18, "'/m': found x; expected y"),
    (MemoryBudgetError(5000, 70, "the RAM", "Less"), 21, "needs 5,000 bytes, but the RAM leaves 70. Less"),
    (DeadlineError(2.5, "the load", "Wait"), 19, "the load did not end within 2.5 s. Wait"),
    (UnsupportedError("no CUDA", "Use cpu"), 20, "no CUDA. Use cpu"),
    (GroupError("rank 3 failed"), 23, "rank 3 failed"),
    (StoreError("/m", "cannot be read", "See dmesg"), 15, "'/m': cannot be read. See dmesg"),
    (NoSpaceError("/m", "full"), 14, "'/m': full"),
    (NotWritableError("/m", "read-only"), 15, "'/m': read-only"),
    (LockTimeoutError("/m", "held"), 16, "'/m': held"),
    (HubError("https://h", "strange"), 10, "https://h: strange"),
    (AuthError("https://h", "gated", "Ask"), 11, "https://h: gated. Ask"),
    (NetworkError("https://h", "unreachable"), 10, "https://h: unreachable"),
]
EVERY = pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=lambda error: type(error).__name__)

TREE = {
    FastloadError: Exception,
    UsageError: FastloadError,
    ModelNotFoundError: FastloadError,
    FormatError: FastloadError,
    IntegrityError: FastloadError,
    SignatureError: FastloadError,
    MemoryBudgetError: FastloadError,
    DeadlineError: FastloadError,
    UnsupportedError: FastloadError,
    GroupError: FastloadError,
    StoreError: FastloadError,
    NoSpaceError: StoreError,
    NotWritableError: StoreError,
    LockTimeoutError: StoreError,
    HubError: FastloadError,
    AuthError: HubError,
    NetworkError: HubError,
}


def test_the_tree_is_as_the_contract_draws_it() -> None:
    classes = {item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__}
    assert {item: item.__bases__[0] for item in classes} == TREE


def test_the_drawing_in_the_docstring_names_every_class() -> None:
    drawing = errors.__doc__ or ""
    assert all(item.__name__ in drawing for item in TREE)


def test_a_usage_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="no reader"):
        raise UsageError("no reader 'x'")


def test_every_class_has_an_example_here() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == TREE.keys() - {FastloadError}


@pytest.mark.parametrize(("error", "exit_code", "sentence"), EXAMPLES)
def test_an_error_has_its_exit_code_and_composes_its_sentence(
    error: FastloadError, exit_code: int, sentence: str
) -> None:
    assert error.exit_code == exit_code
    assert str(error) == sentence
    with pytest.raises(type(error)):
        raise error


@EVERY
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_process_borders_with_its_facts(error: FastloadError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert again.to_dict() == error.to_dict()
    assert str(again) == str(error)


def test_notes_cross_process_borders_too() -> None:
    error = StoreError("/m", "gone")
    error.add_note("The module's content is undefined")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert again.__notes__ == ["The module's content is undefined"]


@EVERY
def test_an_error_can_be_copied(error: FastloadError) -> None:
    assert str(copy.copy(error)) == str(copy.deepcopy(error)) == str(error)


@EVERY
def test_facts_are_attributes_and_json(error: FastloadError) -> None:
    facts = json.loads(json.dumps(error.to_dict()))
    assert facts["type"] == type(error).__name__
    assert facts["message"] == str(error)
    assert "hint" in facts
    for name in facts.keys() - {"type", "message"}:
        own = getattr(error, name)
        assert facts[name] == (list(own) if isinstance(own, tuple) else own)


def test_what_was_found_goes_with_an_error_and_is_json_too() -> None:
    found = Finding(path="a.safetensors", block=1, offset=7, found="x", expected="y", repaired=False)
    for error in (IntegrityError("/m", 7, "x", "y", findings=(found,)), StoreError("/m", "full", findings=(found,))):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert again.findings == (found,)
        assert json.loads(json.dumps(again.to_dict()))["findings"] == [asdict(found)]


def test_facts_are_json_types_already() -> None:
    assert ModelNotFoundError("m", ("/a",)).to_dict()["searched"] == ["/a"]


def test_the_base_class_can_be_raised_and_told_as_well() -> None:
    error = FastloadError("something else")
    assert error.to_dict() == {"type": "FastloadError", "message": "something else"}
    assert error.exit_code == 1
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert str(again) == "something else"


@EVERY
@pytest.mark.parametrize("before", ["", "Check the mount"])
def test_a_hint_is_added_after_the_one_that_is_there(error: FastloadError, before: str) -> None:
    told = copy.copy(error)
    told.hint = before
    told.add_hint("")
    assert told.hint == before
    told.add_hint("Try again")
    assert told.hint == (f"{before}. Try again" if before else "Try again")
    assert str(told).endswith(f". {told.hint}")
    assert told.to_dict()["hint"] == told.hint
    assert copy.copy(told).hint == told.hint


def test_the_base_class_tells_its_hint_too() -> None:
    error = FastloadError("something else")
    error.add_hint("Try again")
    assert str(error) == error.to_dict()["message"] == "something else. Try again"


def test_two_errors_alike_are_still_two() -> None:
    assert UnsupportedError("x") != UnsupportedError("x")
    assert len({UnsupportedError("x"), UnsupportedError("x")}) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model.layers.0", "'model.layers.0'"),
        ("größe/权重", "'größe/权重'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[31mred\x07", r"'\x1b[31mred\x07'"),
        ("\u202egnp.exe", r"'\u202egnp.exe'"),
        ("\udc80", r"'\udc80'"),
        ("\u2028", r"'\u2028'"),
        ("", "''"),
        ("x" * 301, "'" + "x" * 300 + "…'"),
        ("x" * 300, "'" + "x" * 300 + "'"),
    ],
)
def test_names_from_files_are_shown_harmless(name: str, shown: str) -> None:
    assert quoted(name) == shown


@given(st.text(st.characters(), max_size=400))
def test_nothing_unprintable_reaches_a_log(name: str) -> None:
    shown = quoted(name)
    assert shown.isprintable()
    assert FormatError(name, "x", "y", tensor=name).to_dict()["message"].isprintable()
    shown.encode()


def test_places_that_were_searched_are_shown_harmless() -> None:
    assert str(ModelNotFoundError("m\n", ("/a\n\x1b[2J",))).isprintable()


def test_a_hint_that_is_added_takes_the_usual_advice_away_from_no_error() -> None:
    error = FormatError("f", "x", "y")
    error.add_hint("It was left out")
    assert str(error).endswith("Fetch the file again, or ask whoever made it. It was left out")
    unfit = UnfitError(())
    unfit.add_hint("Look again")
    assert "Look again" in str(unfit)
