"""Reading from the hub: the right bytes over the worst of connections, or an error that says why not."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastload._store.hub.body import Target
from fastload._store.hub.meter import Meter
from fastload._store.hub.tier import HubAccess, HubTier, Patience
from fastload.errors import AuthError, HubError, IntegrityError, NetworkError, UsageError
from hub_clients import CONTENT, HURRIED, TOKEN, find, hub_with, open_file, patience_with, read, tier_of
from hub_faults import PORTAL, Cut, Drip, Headers, NoRanges, Redirect, Refuse, Stall, too_many_requests
from hub_proxy import Proxy
from hub_server import HubServer, Repo
from hub_tls import PrivateAuthority, make_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._read.reader import Reader
    from fastload._store.hub.reader import HubReader
    from hub_faults import Fault

FILES = {"model.safetensors": CONTENT, "config.json": b"{}", "empty.txt": b"", "a b+c%41/ü.json": b"[1]"}
SIZE = len(CONTENT)
WEIGHTS = "*.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_with(FILES) as server:
        yield server


@pytest.fixture
def tier(hub: HubServer) -> Iterator[HubTier]:
    with tier_of(hub) as opened:
        yield opened


@pytest.fixture
def reader(tier: HubTier) -> Iterator[HubReader]:
    opened = open_file(tier)
    yield opened
    opened.close()


def ranges(hub: HubServer, host: str = "cdn") -> list[str]:
    return [request.headers.get("range", "") for request in hub.asked(host, "safetensors")]


class TestReading:
    """Nothing goes wrong."""

    def test_it_is_a_reader(self, reader: HubReader) -> None:
        as_reader: Reader = reader
        assert (as_reader.name, as_reader.alignment_bytes) == ("hub", 1)
        as_reader.check_path()

    @pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (0, 1), (12_345, 700_000), (SIZE - 1, 1), (SIZE, 0)])
    def test_it_fills_the_exact_bytes_of_any_part(self, reader: HubReader, offset: int, length: int) -> None:
        assert read(reader, offset, length) == CONTENT[offset : offset + length]

    def test_a_buffer_may_reach_past_the_end_of_the_file(self, reader: HubReader) -> None:
        assert read(reader, SIZE - 5, 8) == CONTENT[-5:] + b"\xee" * 3
        assert read(reader, SIZE + 5, 3) == b"\xee" * 3

    def test_several_buffers_are_filled_one_after_another(self, hub: HubServer, reader: HubReader) -> None:
        buffers = [bytearray(length) for length in (1, 0, 300_000, 7, 500_000)]
        reader.read_into(100, [memoryview(buffer) for buffer in buffers])
        assert b"".join(buffers) == CONTENT[100:800_108]
        assert ranges(hub) == ["bytes=100-800107"]

    def test_each_buffer_is_told_of_when_it_is_full_within_one_request(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Drip(step_bytes=50_000, pause_s=0.01), path=WEIGHTS, times=None)
        buffers = [bytearray(length) for length in (300_000, 0, 400_000, 7)]
        told = []
        for number in reader.read_each(100, [memoryview(buffer) for buffer in buffers]):
            told.append(number)
            assert told != [0] or not any(buffers[2][-100_000:]), "the rest is still on its way"
        assert sorted(told) == [0, 1, 2, 3]
        assert b"".join(buffers) == CONTENT[100:700_107]
        assert ranges(hub) == ["bytes=100-700106"]

    def test_what_breaks_off_after_some_buffers_goes_on_in_the_next(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Cut(after_bytes=350_000), path=WEIGHTS, times=1)
        buffers = [bytearray(200_000) for _ in range(3)]
        assert list(reader.read_each(0, [memoryview(buffer) for buffer in buffers])) == [0, 1, 2]
        assert b"".join(buffers) == CONTENT[:600_000]

    def test_an_empty_file_costs_no_request(self, hub: HubServer, tier: HubTier) -> None:
        reader = open_file(tier, "empty.txt")
        asked = len(hub.requests)
        assert read(reader, 0, 4) == b"\xee" * 4
        assert len(hub.requests) == asked

    def test_a_name_may_hold_what_an_address_may_not(self, tier: HubTier) -> None:
        assert read(open_file(tier, "a b+c%41/ü.json"), 0, 3) == b"[1]"

    def test_the_link_is_asked_for_once_and_each_read_costs_one_request_over_the_same_connection(
        self, hub: HubServer, reader: HubReader
    ) -> None:
        for offset in range(0, SIZE, 250_000):
            read(reader, offset, 250_000)
        assert len(hub.asked("hub", "/resolve/")) == 1
        assert len(ranges(hub)) == 5
        assert {len({request.connection for request in hub.asked(host)}) for host in ("hub", "cdn")} == {1}
        assert hub.served_bytes("safetensors") == SIZE

    def test_a_small_file_comes_from_the_hub_itself_each_time(self, hub: HubServer, tier: HubTier) -> None:
        reader = open_file(tier, "config.json")
        assert [read(reader, 0, 1), read(reader, 1, 1)] == [b"{", b"}"]
        assert len({request.connection for request in hub.requests}) == 1

    def test_it_asks_for_the_bytes_as_they_are_and_says_who_it_is(self, hub: HubServer, reader: HubReader) -> None:
        read(reader, 0, 10)
        for request in hub.requests:
            assert request.headers["accept-encoding"] == "identity"
            assert request.headers["user-agent"].startswith("fastload/")

    def test_threads_may_read_at_once(self, reader: HubReader) -> None:
        offsets = range(0, SIZE, 50_000)
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda offset: read(reader, offset, min(50_000, SIZE - offset)), offsets))
        assert b"".join(parts) == CONTENT

    def test_nothing_is_left_open(self, leaks_nothing: None) -> None:
        with hub_with(FILES) as hub, tier_of(hub) as tier:
            reader = open_file(tier)
            read(reader, 0, SIZE)
            reader.close()

    def test_nor_while_somebody_keeps_an_answer(self, hub: HubServer, tier: HubTier) -> None:
        """As the frames do that an error came through: they may be part of a circle, and stay until it is collected."""
        wire = tier._wire
        answer = wire.get(f"{hub.url}/api/models/org/name/revision/main", {})
        connection = answer.response.connection
        assert connection is not None
        wire.read_all(answer, SIZE)
        answer.finish()
        assert not connection.is_closed
        tier.close()
        assert connection.is_closed


class TestTheToken:
    """Goes to the endpoint, and nowhere else."""

    @pytest.fixture
    def hub(self) -> Iterator[HubServer]:
        with HubServer({"org/name": Repo(FILES, is_gated=True)}, {TOKEN: frozenset({"org/name"})}) as server:
            yield server

    def test_not_to_the_cdn_nor_into_a_log(self, hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        hub.faults.add(Cut(1000), host="cdn")
        with tier_of(hub, token=TOKEN) as tier:
            assert read(open_file(tier), 0, SIZE) == CONTENT
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in hub.asked("hub"))
        assert not any("authorization" in request.headers for request in hub.asked("cdn"))
        assert TOKEN not in caplog.text

    @pytest.mark.parametrize("host", ["hub", "cdn"])
    @pytest.mark.parametrize("between", ["\\@", "\\%40@", "\t\\@"])
    def test_nor_to_who_is_taken_for_the_hub(self, hub: HubServer, between: str, host: str) -> None:
        """By one half of Python the host is what comes after the backslash, by the other one what is before it."""
        commit = hub.repos["org/name"].commit
        place = hub.url.removeprefix("http://")
        location = f"{hub.cdn_url}{between}{place}/org/name/resolve/{commit}/model.safetensors"
        hub.faults.add(Redirect(location), path=WEIGHTS if host == "hub" else "*", host=host)
        with tier_of(hub, token=TOKEN) as tier:
            assert read(open_file(tier), 0, SIZE) == CONTENT
        assert not any("authorization" in request.headers for request in hub.asked("cdn"))

    def test_a_redirect_on_the_same_host_and_port_keeps_it(self, hub: HubServer) -> None:
        commit = hub.repos["org/name"].commit
        hub.faults.add(Redirect(f"/org/name/resolve/{commit}/model.safetensors"), path=WEIGHTS, host="hub")
        with tier_of(hub, token=TOKEN) as tier:
            assert read(open_file(tier), 0, 9) == CONTENT[:9]
        assert all("authorization" in request.headers for request in hub.asked("hub"))

    @pytest.mark.parametrize("token", ["", "hf_unknown"])
    def test_without_the_right_one_the_reason_is_said_once(self, hub: HubServer, token: str) -> None:
        hub.tokens = {**hub.tokens, "hf_unknown": frozenset()}
        with tier_of(hub, token=token) as tier, pytest.raises(AuthError, match="gated") as caught:
            read(open_file(tier), 0, 9)
        assert ("no token was sent" in str(caught.value)) == (not token)
        assert f"{hub.url}/org/name" in caught.value.hint
        assert len(hub.asked(path="/resolve/")) == 1


class TestTheLink:
    """Signed, and good for a while."""

    def test_one_that_expired_is_asked_for_again(self, hub: HubServer, reader: HubReader) -> None:
        assert read(reader, 0, 100) == CONTENT[:100]
        hub.expire_links()
        assert read(reader, 100, 100) == CONTENT[100:200]
        assert [request.status for request in hub.asked("cdn")] == [206, 403, 206]
        assert len(hub.asked("hub", "/resolve/")) == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_however_its_host_says_so(self, hub: HubServer, reader: HubReader, status: int) -> None:
        read(reader, 0, 1)
        hub.faults.add(Refuse(status), host="cdn")
        assert read(reader, 0, 9) == CONTENT[:9]

    def test_in_the_middle_of_a_read(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Cut(300_000), host="cdn")
        hub.faults.add(Refuse(403), host="cdn", skip=1)
        assert read(reader, 0, SIZE) == CONTENT
        assert ranges(hub) == ["bytes=0-1000002", "bytes=300000-1000002", "bytes=300000-1000002"]

    def test_a_fresh_one_that_is_refused_is_no_question_of_access(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Refuse(403), host="cdn", times=None)
        with pytest.raises(NetworkError, match=r"refuses its link \(status 403\)") as caught:
            read(reader, 0, 9)
        assert "secret" not in str(caught.value)
        assert len(hub.asked("cdn")) == HURRIED.attempts

    def test_a_host_that_does_not_answer_any_more_is_left(self, hub: HubServer, reader: HubReader) -> None:
        read(reader, 0, 1)
        hub.faults.add(Cut(0), host="cdn")
        assert read(reader, 0, 9) == CONTENT[:9]
        assert len(hub.asked("hub", "/resolve/")) == 2

    def test_redirects_in_a_circle(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Redirect(f"{hub.cdn_url}/cdn/00/x"), host="cdn", times=None)
        with pytest.raises(NetworkError, match="redirected more than 10 times"):
            read(reader, 0, 9)


class TestWhatBreaksOff:
    """Goes on where it broke off."""

    @pytest.mark.parametrize("fault", [Cut(400_000), Stall(400_000, 20.0)], ids=["cut", "silent"])
    def test_at_the_byte_it_had_come_to(self, hub: HubServer, fault: Fault) -> None:
        hub.faults.add(fault, host="cdn")
        with tier_of(hub, patience=patience_with(fault)) as tier, closing(open_file(tier)) as reader:
            assert read(reader, 7, SIZE) == CONTENT[7:] + b"\xee" * 7
        assert ranges(hub) == ["bytes=7-1000002", "bytes=400007-1000002"]

    def test_as_often_as_it_takes_while_there_is_progress(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Cut(100_000), host="cdn", times=None)
        assert read(reader, 0, SIZE) == CONTENT
        assert len(ranges(hub)) == 11
        assert hub.served_bytes("/cdn/") == SIZE

    @pytest.mark.parametrize("fault", [Cut(0), Stall(0, 20.0), Stall(-1, 20.0), Refuse(503), PORTAL], ids=repr)
    def test_but_not_without(self, hub: HubServer, fault: Fault) -> None:
        hub.faults.add(fault, host="cdn", times=None)
        with tier_of(hub, patience=patience_with(fault)) as tier:
            reader = open_file(tier)
            with pytest.raises(NetworkError, match="3 times in a row") as caught:
                read(reader, 0, SIZE)
        assert "secret" not in str(caught.value)
        assert len(hub.asked("cdn")) == HURRIED.attempts

    @pytest.mark.parametrize("fault", [Refuse(429), Refuse(500), Refuse(503), Refuse(408), PORTAL], ids=repr)
    @pytest.mark.parametrize("host", ["hub", "cdn"])
    def test_what_passes_is_waited_for(self, hub: HubServer, reader: HubReader, fault: Fault, host: str) -> None:
        hub.faults.add(fault, host=host, path=WEIGHTS)
        assert read(reader, 0, SIZE) == CONTENT

    def test_as_long_as_is_asked(self, hub: HubServer) -> None:
        hub.faults.add(too_many_requests(1), host="cdn")
        with tier_of(hub, patience=replace(HURRIED, longest_pause_s=30.0)) as tier:
            reader, start = open_file(tier), time.monotonic()
            read(reader, 0, 9)
        assert 1.0 <= time.monotonic() - start < 15.0

    def test_what_is_too_slow_is_cut(self, hub: HubServer) -> None:
        hub.faults.add(Drip(1000, 0.05), host="cdn")  # 20 kB/s: 50 s for the whole
        patience = replace(HURRIED, floor_bytes_per_s=200_000, floor_window_s=0.3)
        with tier_of(hub, patience=patience) as tier:
            reader, start = open_file(tier), time.monotonic()
            assert read(reader, 0, SIZE) == CONTENT
        assert 0.3 <= time.monotonic() - start < 20.0
        assert len(ranges(hub)) == 2

    def test_what_is_always_too_slow_still_arrives(self, hub: HubServer) -> None:
        hub.faults.add(Drip(50_000, 0.05), host="cdn", times=None)
        with tier_of(hub, patience=replace(HURRIED, floor_bytes_per_s=1 << 30, floor_window_s=0.15)) as tier:
            assert read(open_file(tier), 0, 400_000) == CONTENT[:400_000]
        assert len(ranges(hub)) > 1

    def test_the_meter_looks_at_whole_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now_s)
        meter = Meter(Patience(floor_bytes_per_s=10, floor_window_s=30.0))
        verdicts = []
        for now_s, count in ((1.0, 1), (29.9, 1), (30.0, 298), (31.0, 0), (59.9, 299), (60.0, 0)):  # noqa: B007
            verdicts.append(meter.is_too_slow(count))
        assert verdicts == [False, False, False, False, False, True]


class TestAnotherFile:
    """What the server has is not what the hub lists."""

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("bytes 1-9/1000003", "bytes 1-9/1000003"),
            ("bytes 0-8/1000003", "bytes 0-8/1000003"),
            ("bytes 0-9/1000004", "bytes 0-9/1000004"),
            ("", "''"),
            ("bytes */1000003", r"bytes \*/1000003"),
        ],
    )
    def test_a_wrong_range_is_refused(self, hub: HubServer, reader: HubReader, text: str, found: str) -> None:
        hub.faults.add(Headers({"Content-Range": text}), host="cdn", times=None)
        with pytest.raises(IntegrityError, match=found) as caught:
            read(reader, 0, 10)
        assert caught.value.path.endswith("/model.safetensors")
        assert "bytes 0-9/1000003" in caught.value.expected

    def test_a_size_that_the_server_does_not_know_is_fine(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Headers({"Content-Range": "bytes 0-9/*"}), host="cdn")
        assert read(reader, 0, 10) == CONTENT[:10]

    def test_a_shorter_file_is_refused(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Refuse(416, {"Content-Range": "bytes */7"}), host="cdn", times=None)
        with pytest.raises(IntegrityError, match=r"bytes \*/7.*1,000,003 bytes"):
            read(reader, 10, 10)

    @pytest.mark.parametrize("length", [5, 20])
    def test_a_wrong_length_is_asked_for_again(self, hub: HubServer, reader: HubReader, length: int) -> None:
        hub.faults.add(Headers({"Content-Length": str(length)}), host="cdn")
        assert read(reader, 0, 10) == CONTENT[:10]
        hub.faults.add(Headers({"Content-Length": str(length)}), host="cdn", times=None)
        with pytest.raises(NetworkError, match=f"announces {length} bytes for a range of 10"):
            read(reader, 0, 10)

    def test_what_was_compressed_on_the_way_is_refused(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Headers({"Content-Encoding": "gzip"}), host="cdn", times=None)
        with pytest.raises(NetworkError, match="compressed"):
            read(reader, 0, 10)

    def test_a_length_that_is_no_number_is_none(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Headers({"Content-Length": "9" * 5000, "Connection": "close"}), host="cdn")
        assert read(reader, 0, 10) == CONTENT[:10]

    def test_a_portal_is_named(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(PORTAL, host="cdn", times=None)
        with pytest.raises(NetworkError, match=r"a web page instead of the file of 1,000,003 bytes.*captive portal"):
            read(reader, 10, 10)

    def test_a_file_that_is_gone(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Refuse(404, {"X-Error-Code": "EntryNotFound"}), host="hub", times=None)
        with pytest.raises(HubError, match="not there any more"):
            read(reader, 0, 10)

    def test_another_status(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Refuse(418), host="cdn")
        with pytest.raises(HubError, match="status 418"):
            read(reader, 0, 10)


class TestServersWithoutRanges:
    """One connection, in file order."""

    @pytest.fixture(params=[True, False], ids=["with length", "chunked"])
    def hub(self, request: pytest.FixtureRequest) -> Iterator[HubServer]:
        with hub_with(FILES) as server:
            server.faults.add(NoRanges(has_length=request.param), host="cdn", times=None)
            yield server

    def test_the_whole_file_in_one_read(self, hub: HubServer, reader: HubReader) -> None:
        assert read(reader, 0, SIZE) == CONTENT
        assert hub.served_bytes("/cdn/") == SIZE

    def test_in_order_over_one_connection(self, hub: HubServer, reader: HubReader) -> None:
        parts = [read(reader, offset, min(100_000, SIZE - offset)) for offset in range(0, SIZE, 100_000)]
        assert b"".join(parts) == CONTENT
        assert len(hub.asked("cdn")) == 1

    def test_by_many_threads_at_once(self, hub: HubServer, reader: HubReader) -> None:
        offsets = list(range(0, SIZE, 30_000))
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda offset: read(reader, offset, min(30_000, SIZE - offset)), offsets))
        assert b"".join(parts) == CONTENT

    def test_later_parts_wait_for_earlier_ones(self, hub: HubServer) -> None:
        patience = replace(HURRIED, grace_s=20.0)
        with (
            tier_of(hub, patience=patience) as tier,
            closing(open_file(tier)) as reader,
            ThreadPoolExecutor(4) as pool,
        ):
            read(reader, 0, 100)
            asked = len(hub.asked("cdn"))
            later = [pool.submit(read, reader, 100 + 1000 * number, 1000) for number in (3, 1, 2)]
            time.sleep(0.1)
            assert not any(part.done() for part in later)
            assert read(reader, 100, 1000) == CONTENT[100:1100]
            assert [part.result() for part in later] == [CONTENT[100 + 1000 * n :][:1000] for n in (3, 1, 2)]
        assert len(hub.asked("cdn")) == asked

    def test_what_nobody_wants_is_skipped_after_a_grace(self, hub: HubServer, reader: HubReader) -> None:
        read(reader, 0, 100)
        asked, start = len(hub.asked("cdn")), time.monotonic()
        assert read(reader, 900_000, 100) == CONTENT[900_000:900_100]
        assert HURRIED.grace_s <= time.monotonic() - start < 10.0
        assert len(hub.asked("cdn")) == asked

    def test_earlier_parts_start_again(self, hub: HubServer, reader: HubReader) -> None:
        read(reader, 500_000, 100)
        asked = len(hub.asked("cdn"))
        assert read(reader, 10, 100) == CONTENT[10:110]
        assert len(hub.asked("cdn")) == asked + 1

    def test_cut_in_the_middle(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Cut(600_000), host="cdn", times=2)
        assert read(reader, 100, 900_000) == CONTENT[100:900_100]

    def test_cut_always_before_what_is_wanted(self, hub: HubServer, reader: HubReader) -> None:
        hub.faults.add(Cut(300_000), host="cdn", times=None)
        with pytest.raises(NetworkError, match="3 times in a row"):
            read(reader, 500_000, 10)
        assert read(reader, 1000, 10) == CONTENT[1000:1010]

    def test_a_stream_that_nobody_reads_is_not_slow(self, hub: HubServer) -> None:
        with tier_of(hub, patience=replace(HURRIED, floor_bytes_per_s=1 << 40, floor_window_s=0.2)) as tier:
            reader = open_file(tier)
            read(reader, 0, 100)
            asked = len(hub.asked("cdn"))
            time.sleep(0.25)
            assert read(reader, 100, 100) == CONTENT[100:200]
            reader.close()
        assert len(hub.asked("cdn")) == asked

    def test_an_expired_link(self, hub: HubServer, reader: HubReader) -> None:
        read(reader, 500_000, 10)
        hub.expire_links()
        hub.faults.clear()
        hub.faults.add(NoRanges(), host="cdn", times=None, path="/cdn/*")
        assert read(reader, 0, 10) == CONTENT[:10]

    @settings(max_examples=15, deadline=None)
    @given(parts=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 200_000)), min_size=1, max_size=12))
    def test_any_parts_in_any_order_by_any_thread(self, parts: list[tuple[int, int]]) -> None:
        with hub_with(FILES) as hub, tier_of(hub, patience=replace(HURRIED, grace_s=0.01)) as tier:
            hub.faults.add(NoRanges(), host="cdn", times=None)
            hub.faults.add(Cut(700_000), host="cdn", skip=1)
            reader = open_file(tier)
            with ThreadPoolExecutor(4) as pool:
                got = list(pool.map(lambda part: read(reader, *part), parts, timeout=20))
            assert [part[: max(0, SIZE - at)] for part, (at, _) in zip(got, parts, strict=True)] == [
                CONTENT[at : at + length] for at, length in parts
            ]
            reader.close()


_SOON_S = 5.0
"""A second is promised; what is waited for takes twenty and more, and the machine may be busy."""


class TestClosing:
    """From another thread, in the middle of a read."""

    @pytest.mark.parametrize("fault", [Stall(-1, 20.0), Stall(400_000, 20.0), Drip(1000, 0.05)], ids=repr)
    @pytest.mark.parametrize("without_ranges", [False, True])
    def test_reads_under_way_end_soon(self, fault: Fault, without_ranges: bool) -> None:  # noqa: FBT001
        with hub_with(FILES) as hub, tier_of(hub, patience=Patience()) as tier:
            reader = open_file(tier)
            hub.faults.add(fault, host="cdn", times=None)
            if without_ranges:
                hub.faults.add(NoRanges(), host="cdn", times=None)
            with ThreadPoolExecutor(4) as pool:
                reads = [pool.submit(read, reader, offset, 500_000) for offset in (0, 300_000, 500_000)]
                time.sleep(0.2)
                start = time.monotonic()
                reader.close()
                for under_way in reads:
                    with pytest.raises(HubError, match="reader was closed"):
                        under_way.result()
            assert time.monotonic() - start < _SOON_S

    def test_so_do_pauses(self, hub: HubServer) -> None:
        hub.faults.add(too_many_requests(60), host="cdn", times=None)
        with tier_of(hub, patience=Patience()) as tier:
            reader = open_file(tier)
            threading.Timer(0.2, reader.close).start()
            start = time.monotonic()
            with pytest.raises(HubError, match="reader was closed"):
                read(reader, 0, 10)
        assert time.monotonic() - start < _SOON_S

    def test_a_closed_reader_reads_nothing(self, reader: HubReader) -> None:
        reader.close()
        reader.close()
        with pytest.raises(HubError, match="reader was closed"):
            read(reader, 0, 10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure_hub(authority: PrivateAuthority) -> Iterator[HubServer]:
    with HubServer({"org/name": Repo(FILES)}, {TOKEN: frozenset()}, tls=authority.server) as server:
        yield server


class TestNetworks:
    """Private certificates and proxies."""

    def test_a_private_authority_is_trusted_if_told(self, secure_hub: HubServer, authority: PrivateAuthority) -> None:
        access = HubAccess(endpoint=secure_hub.url, token=TOKEN, ca_file=authority.ca_file, patience=HURRIED)
        with HubTier(access) as tier:
            secure_hub.faults.add(Cut(400_000), host="cdn")
            assert read(open_file(tier), 0, SIZE) == CONTENT
        assert not any("authorization" in request.headers for request in secure_hub.asked("cdn"))

    def test_else_it_is_not_and_that_is_not_tried_again(self, secure_hub: HubServer) -> None:
        access = HubAccess(endpoint=secure_hub.url, token="")
        with HubTier(access) as tier, pytest.raises(NetworkError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            find(tier)
        assert not secure_hub.requests

    @pytest.mark.parametrize("after_bytes", [-1, 400_000])
    def test_closing_over_tls(self, secure_hub: HubServer, authority: PrivateAuthority, after_bytes: int) -> None:
        access = HubAccess(endpoint=secure_hub.url, token="", ca_file=authority.ca_file)
        with HubTier(access) as tier:
            reader = open_file(tier)
            secure_hub.faults.add(Stall(after_bytes, 20.0), host="cdn")
            threading.Timer(0.2, reader.close).start()
            start = time.monotonic()
            with pytest.raises(HubError, match="reader was closed"):
                read(reader, 0, SIZE)
        assert time.monotonic() - start < _SOON_S

    @pytest.mark.parametrize("ca_file", ["/nowhere/ca.pem", __file__])
    def test_certificates_that_cannot_be_read(self, hub: HubServer, ca_file: str) -> None:
        access = HubAccess(endpoint=hub.url, token="", ca_file=ca_file)
        with HubTier(access) as tier, pytest.raises(UsageError, match="no certificates can be read"):
            find(tier)

    def test_https_goes_through_a_tunnel(self, secure_hub: HubServer, authority: PrivateAuthority) -> None:
        with Proxy(credentials="me:p@ss") as proxy:
            access = HubAccess(
                endpoint=secure_hub.url,
                token=TOKEN,
                ca_file=authority.ca_file,
                https_proxy=f"http://me:p%40ss@{proxy.address}",
                patience=HURRIED,
            )
            with HubTier(access) as tier:
                assert read(open_file(tier), 0, SIZE) == CONTENT
            assert len(proxy.requests) == 2 and all(line.startswith("CONNECT 127.0.0.") for line in proxy.requests)
            assert TOKEN not in "".join(proxy.heads)

    @pytest.mark.parametrize(
        "proxy", ["http://[::", "http://[", "http://a:x", "http://a:99999", "ftp://a", "http://", "x y"]
    )
    def test_a_proxy_that_is_no_address(self, hub: HubServer, proxy: str) -> None:
        access = HubAccess(endpoint=hub.url, token="", http_proxy=proxy, patience=HURRIED)
        with HubTier(access) as tier, pytest.raises(UsageError, match="the proxy is no http or https address"):
            find(tier)

    def test_http_goes_through_a_proxy(self, hub: HubServer) -> None:
        with Proxy() as proxy:
            access = HubAccess(endpoint=hub.url, token="", http_proxy=proxy.address, patience=HURRIED)
            with HubTier(access) as tier:
                assert read(open_file(tier), 0, SIZE) == CONTENT
            assert proxy.requests[0].startswith(f"GET {hub.url}/api/models/org/name/")

    @pytest.mark.parametrize("no_proxy", ["127.0.0.1,127.0.0.2", "*", "example.com, 127.0.0.1 , 127.0.0.2"])
    def test_some_hosts_are_reached_directly(self, hub: HubServer, no_proxy: str) -> None:
        access = HubAccess(endpoint=hub.url, token="", http_proxy="http://127.0.0.1:1", no_proxy=no_proxy)
        with HubTier(access) as tier:
            assert read(open_file(tier), 0, 9) == CONTENT[:9]

    def test_a_proxy_that_refuses(self, secure_hub: HubServer, authority: PrivateAuthority) -> None:
        with Proxy(credentials="me:right") as proxy:
            access = HubAccess(
                endpoint=secure_hub.url,
                token="",
                ca_file=authority.ca_file,
                https_proxy=f"http://me:wrong@{proxy.address}",
                patience=HURRIED,
            )
            with (
                HubTier(access) as tier,
                pytest.raises(NetworkError, match=r"proxy does not let us through.*407") as caught,
            ):
                find(tier)
        assert "wrong" not in str(caught.value)

    @pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://"])
    def test_a_proxy_that_is_none(self, hub: HubServer, proxy: str) -> None:
        access = HubAccess(endpoint=hub.url, token="", http_proxy=proxy)
        with HubTier(access) as tier, pytest.raises(UsageError, match="no http or https address"):
            find(tier)


@given(st.lists(st.binary(max_size=9)), st.integers(0, 40), st.integers(0, 40), st.integers(1, 7))
def test_a_target_is_filled_in_order_whatever_the_pieces(
    buffers: list[bytes], offset: int, size: int, step: int
) -> None:
    content = bytes(range(size))
    memory = [bytearray(buffer) for buffer in buffers]
    target = Target(offset, [memoryview(buffer) for buffer in memory], size)
    while target.wanted_bytes:
        target.put(content[target.offset : target.end][:step])
    before = b"".join(buffers)
    wanted = content[offset : offset + len(before)]
    assert b"".join(memory) == wanted + before[len(wanted) :]
