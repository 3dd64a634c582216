"""Whatever huggingface_hub prints or logs, or the library of our own requests, no signed link and no token is in it."""

from __future__ import annotations

import functools
import logging
import subprocess
import time
import traceback
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest

import fastload
from fastload import NetworkError, Options
from fastload._store.hub.access import find_token
from fastload._store.hub.redacting import redact, redacting
from hub_clients import TOKEN
from hub_faults import Cut, Headers, Refuse, Stall
from hub_server import HubServer, Repo
from warming import FASTLOAD, MIB, Tiers, large_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
SHARD = "model.safetensors"
LINK = "https://cdn.example/a/b?X-Amz-Expires=60&X-Amz-Signature=abc%2Fdef"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    repos = {REPO: Repo({SHARD: large_shard(3 * MIB, 1), "config.json": b"{}"})}
    with HubServer(repos, tokens={TOKEN: frozenset({REPO})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield server


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that any library logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def is_secret(text: str) -> bool:
    """The hub signs by ``Signature=secret…``."""
    return "Signature=" in text or "secret" in text or TOKEN in text


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_a_broken_connection_is_told_without_the_link_that_was_signed(
    tmp_path: Path, hub: HubServer, level: str
) -> None:
    """A process of its own: the library reads these settings when it is imported."""
    hub.faults.add(Stall(MIB, 5), host="cdn")
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_VERBOSITY": level}
    tiers = Tiers(tmp_path, tiers="local,hub", more=more | {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_DEBUG": "1"})
    words = [*FASTLOAD, "warm", REPO, "--transfer", "hub"]
    done = subprocess.run(words, env=tiers.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Error while downloading from" in done.stderr, "it is told all the same"
    assert f"{hub.cdn_url}/cdn/" in done.stderr
    assert not is_secret(done.stdout + done.stderr)


def test_what_goes_to_the_programs_own_handlers_has_none_either(
    tmp_path: Path, hub: HubServer, everything: pytest.LogCaptureFixture
) -> None:
    fastload.warm(REPO, options=Options(local=str(tmp_path), transfer="hub"))
    assert hub.served_bytes("/cdn/")
    assert f"{hub.cdn_url}/cdn/" in everything.text, "it was logged where the bytes came from"
    theirs = [record for record in everything.records if record.name.startswith(("huggingface_hub", "http"))]
    assert theirs and not any(is_secret(record.getMessage()) for record in theirs)
    assert not is_secret(everything.text)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_what_is_logged_of_our_own_requests_has_none_either(
    tmp_path: Path, hub: HubServer, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    """Of each request at level DEBUG; and where the headers of an answer are no headers, at WARNING."""
    caplog.set_level(level)
    hub.faults.add(Headers({"no header at all": "x"}), host="cdn", times=None)
    fastload.warm(REPO, options=Options(local=str(tmp_path)))
    assert hub.served_bytes("/cdn/")
    theirs = [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")]
    assert any("/cdn/" in message for message in theirs), "it was logged where the bytes came from"
    assert not is_secret(caplog.text)
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_what_is_logged_while_the_token_is_found_has_it_not(
    hub: HubServer, everything: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> str:
        logging.getLogger("httpcore.http11").debug("renewed: Authorization: Bearer %s", TOKEN)
        return TOKEN

    monkeypatch.setattr(huggingface_hub, "get_token", find)
    assert find_token(hub.url) == TOKEN
    assert "renewed: Authorization: …" in everything.text and not is_secret(everything.text)


def test_an_error_of_our_own_requests_has_no_link_either(
    tmp_path: Path, hub: HubServer, everything: pytest.LogCaptureFixture
) -> None:
    hub.faults.add(Cut(1 << 10), host="cdn", times=None)
    with pytest.raises(NetworkError) as caught:
        fastload.warm(REPO, options=Options(local=str(tmp_path), deadline="2s"))
    assert not is_secret("".join(traceback.format_exception(caught.value)) + everything.text)


@pytest.mark.parametrize("status", [403, 404])
def test_an_error_keeps_its_meaning_and_neither_it_nor_its_causes_have_the_link(
    tmp_path: Path, hub: HubServer, everything: pytest.LogCaptureFixture, status: int
) -> None:
    hub.faults.add(Refuse(status), host="cdn", times=None)
    with pytest.raises(NetworkError) as caught:
        fastload.warm(REPO, options=Options(local=str(tmp_path), transfer="hub"))
    assert "huggingface_hub did not bring it (" in str(caught.value)
    told = "".join(traceback.format_exception(caught.value))
    assert str(status) in told and "hf_hub_download" in told, "what it was, and where"
    assert not is_secret(told + everything.text)


def test_what_others_log_meanwhile_is_left_alone_and_so_is_all_of_it_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def say() -> list[str]:
        caplog.clear()
        for name in ("mine", "huggingface_hub.made.just.now"):
            logging.getLogger(name).warning("from %s", LINK)
        return [record.getMessage() for record in caplog.records]

    with redacting(), redacting():
        assert say() == [f"from {LINK}", "from https://cdn.example/a/b?…"]
        with redacting():
            pass
        assert say() == [f"from {LINK}", "from https://cdn.example/a/b?…"]
    assert say() == [f"from {LINK}"] * 2
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert all(not handler.filters for handler in logging.root.handlers)


class Broken:
    """An argument that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(("message", "args"), [("from %s", (Broken(),)), (Broken(), ()), ("%d", ("x",))])
def test_what_cannot_be_shown_ends_no_download(
    caplog: pytest.LogCaptureFixture, message: object, args: tuple[object, ...]
) -> None:
    with redacting():
        logging.getLogger("huggingface_hub.made").warning(message, *args)
    assert len(caplog.records) == 1


def test_a_handler_that_is_added_meanwhile_sees_no_link_either() -> None:
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub.made")
    with redacting():
        logger.addHandler(handler)
        try:
            logger.warning("from %s", LINK)
        finally:
            logger.removeHandler(handler)
    assert seen == ["from https://cdn.example/a/b?…"]


def test_a_record_factory_of_the_programs_own_is_asked_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.getLogRecordFactory()

    def make(*args: Any, **more: Any) -> logging.LogRecord:
        record = before(*args, **more)
        record.made_by = "the program"
        return record

    logging.setLogRecordFactory(make)
    try:
        with redacting():
            record = logging.getLogger("httpx").makeRecord("httpx", logging.INFO, "f", 1, LINK, (), None)
            logging.makeLogRecord({"msg": "what another process has sent"})
        assert logging.getLogRecordFactory() is make
    finally:
        logging.setLogRecordFactory(before)
    assert vars(record)["made_by"] == "the program"
    assert record.getMessage() == "https://cdn.example/a/b?…"


def test_who_wraps_it_meanwhile_keeps_his_own_and_the_next_time_it_works_again() -> None:
    before = logging.getLogRecordFactory()

    def say() -> str:
        return logging.getLogger("httpx").makeRecord("httpx", logging.INFO, "f", 1, LINK, (), None).getMessage()

    try:
        with redacting():
            inner = logging.getLogRecordFactory()
            logging.setLogRecordFactory(wrapper := functools.partial(inner))
        assert logging.getLogRecordFactory() is wrapper
        assert say() == LINK
        with redacting():
            assert say() == "https://cdn.example/a/b?…"
        assert logging.getLogRecordFactory() is wrapper
    finally:
        logging.setLogRecordFactory(before)


def test_an_interrupt_while_it_begins_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = logging.setLogRecordFactory
    calls: list[object] = []

    def interrupted(factory: Any) -> None:
        real(factory)
        calls.append(factory)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(logging, "setLogRecordFactory", interrupted)
    with pytest.raises(KeyboardInterrupt), redacting():
        pass
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_an_error_that_is_logged_with_its_traceback_is_told_without_it(caplog: pytest.LogCaptureFixture) -> None:
    with redacting():
        logging.getLogger("huggingface_hub.file_download").error("it broke", exc_info=ValueError(LINK))
    assert "ValueError: https://cdn.example/a/b?…" in caplog.text
    assert "X-Amz-Signature" not in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET {LINK} HTTP/1.1", "GET https://cdn.example/a/b?… HTTP/1.1"),
        ("(b'Location', b'/a?Expires=1&Signature=x'), (b'Date', b'')", "(b'Location', b'/a?…'), (b'Date', b'')"),
        (f"Authorization: Bearer {TOKEN}'", "Authorization: …'"),
        (f"the token {TOKEN} is", "the token … is"),
        ("hf_jwt_eyJhbGciOiJFZERTQSJ9.eyJyZWFkIjp0cnVlfQ.x_y", "…"),
        (
            "/a?disposition=inline;filename*=UTF-8''m.safetensors;&Signature=secret&Key-Pair-Id=secret",
            "/a?…''m.safetensors;&Signature=…&Key-Pair-Id=…",
        ),
        ('/a?d=inline; filename="m";&X-Amz-Signature=secret&a=b', '/a?… filename="m";&X-Amz-Signature=…&a=b'),
        *(
            (f"a b&{name}=secret", f"a b&{name}=…")
            for name in ("X-Amz-Credential", "X-Amz-Security-Token", "Policy", "sig", "token", "access_token")
        ),
        ("to https://user:secret@mirror/x", "to https://…@mirror/x"),
        ("to https://user:sec@ret@mirror/x", "to https://…@mirror/x"),
        ("https://mirror/x and me@x", "https://mirror/x and me@x"),
        ("authorization: Basic secret==", "authorization: …"),
        ("{'X-Xet-Access-Token': 'eyJsecret.abc', 'a': 1}", "{'X-Xet-Access-Token': '…', 'a': 1}"),
        ("(b'X-Xet-Access-Token', b'secret')", "(b'X-Xet-Access-Token', b'…')"),
        ("(b'Authorization', b'Basic secret')", "(b'Authorization', b'…')"),
        ("Set-Cookie: token=secret; Path=/", "Set-Cookie: …"),
        ('{"accessToken": "secret"}', '{"accessToken": "…"}'),
        ("the token api_org_abcdefghijklmnop is", "the token … is"),
        ("a design=b, policy: none, the token is wrong", "a design=b, policy: none, the token is wrong"),
        ("is it there? a=b, yes", "is it there? a=b, yes"),
        ("hf_hub_download", "hf_hub_download"),
    ],
)  # fmt: skip
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("piece", ["a-", "?a", "://a", "eyJ-", "token ", "?=&", "hf_", "bearer ", "cookie:"])
def test_what_a_hub_makes_them_log_costs_no_more_than_its_length(piece: str) -> None:
    def time_s(text: str) -> float:
        begin = time.process_time()
        redact(text)
        return time.process_time() - begin

    short, long = (min(time_s(piece * times) for _ in range(3)) for times in (5_000, 40_000))
    assert long < 20 * short + 0.02  # 64 times, were it by the square
