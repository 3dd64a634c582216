"""Ranks that find each other, talk and notice failures: threads here, over real sockets and a store of torch's own."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from torch._C._distributed_c10d import HashStore

import fastload
from fastload._fetch.deadline import NEVER, Deadline
from fastload._group import heard
from fastload._group.abort import FAIL
from fastload._group.link import Incoming, Outgoing
from fastload._group.pending import PendingCommunicator
from fastload._group.rendezvous import GroupMember
from fastload._group.rendezvous_connection import RendezvousConnection
from fastload._group.rendezvous_store import _KEY
from fastload._group.wire import frame, send_message
from rendezvous import SIZE, sit, soon, wait_rendezvous_over
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._group.communicator import Communicator

NESTED = [b"[" * 4000, b"[" * 100_000, b"[" + b"[],1" * 1_000_000]
"""JSON that a parser of Python's gives up on in a way of its own, or that becomes a hundred MB."""


@pytest.fixture
def store() -> HashStore:
    return HashStore()


def meet(store: HashStore, deadline: Deadline = NEVER) -> list[Communicator]:
    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(lambda rank: sit(store, rank, deadline=deadline), range(SIZE)))


@pytest.fixture
def ranks(store: HashStore, leaks_nothing: None) -> Iterator[list[Communicator]]:
    with ExitStack() as undo:
        met = meet(store)
        for each in met:
            undo.callback(each.close)
        yield met


def on_all(ranks: list[Communicator], work: Callable[[Communicator], object]) -> list[object]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(work, ranks))


def say(number: int, each: Communicator) -> object:
    return each.all_gather((number, each.rank))


def test_words_come_to_all_in_the_order_of_ranks(ranks: list[Communicator]) -> None:
    for number in range(3):
        said = on_all(ranks, partial(say, number))
        assert said == [{rank: (number, rank) for rank in range(SIZE)}] * SIZE


def test_they_are_on_one_machine(ranks: list[Communicator]) -> None:
    assert [each.nodes for each in ranks] == [(0,) * SIZE] * SIZE


def test_a_failure_is_told_with_its_cause_and_the_first_counts(ranks: list[Communicator]) -> None:
    ranks[1].fail(ValueError("no such thing"))
    with pytest.raises(fastload.GroupError, match="rank 1 failed: ValueError: no such thing"):
        ranks[0].all_gather(None)
    with pytest.raises(fastload.GroupError, match="rank 1 failed"):
        ranks[2].all_gather(None)
    ranks[2].fail(KeyError("later"))
    for each in ranks:
        with pytest.raises(fastload.GroupError, match="rank 1 failed"):
            each.all_gather(None)
        assert not each.is_whole


def test_whoever_has_left_is_not_waited_for(ranks: list[Communicator]) -> None:
    ranks[2].leave()
    assert on_all(ranks[:2], lambda each: each.all_gather(each.rank)) == [{0: 0, 1: 1}] * 2
    ranks[2].close()
    assert on_all(ranks[:2], lambda each: each.all_gather(each.rank)) == [{0: 0, 1: 1}] * 2


def test_of_whoever_has_left_counts_what_it_said_last(
    ranks: list[Communicator], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks[2].leave("some")
    assert ranks[0].had_left(2)
    monkeypatch.setattr(heard, "_ACCOUNT_S", 60.0)  # however late a machine that is busy lets it be said
    later = threading.Timer(0.2, ranks[2].vouch, ["all"])
    later.start()
    assert ranks[0].find_account(2) == "all"
    later.join()


def test_nobody_waits_long_for_what_one_that_has_left_may_say(ranks: list[Communicator]) -> None:
    ranks[2].leave("some")
    with Stopwatch() as watch:
        assert ranks[0].find_account(2) == "some"
    assert watch.seconds < 5.0
    ranks[2].close()
    assert ranks[1].find_account(2) == "some"
    ranks[0].close()
    assert ranks[1].find_account(0) is None


@pytest.mark.parametrize("wait", [lambda each: each.all_gather(None), lambda each: each.wait_vouched(1)])
def test_words_are_waited_for_until_the_deadline(
    store: HashStore, leaks_nothing: None, wait: Callable[[Communicator], object]
) -> None:
    """Peers that say nothing live all the same: nobody else would end this."""
    with ExitStack() as undo:
        deadline = Deadline(1.0, "the load")
        deadline._begin_s += 60.0  # their meeting is not what takes too long
        met = meet(store, deadline)
        for each in met:
            undo.callback(each.close)
        deadline._begin_s = time.monotonic()
        with pytest.raises(fastload.DeadlineError, match="the load did not end within 1 s"):
            wait(met[0])


def test_a_farewell_may_be_heard_after_the_connection_broke(
    ranks: list[Communicator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and words have connections of their own, and which of two ends is seen first is chance."""
    assert not ranks[0].has_left(1)
    later = threading.Timer(0.2, ranks[1].leave)
    with monkeypatch.context() as patch:
        patch.setattr(heard, "BEAT_S", 60.0)  # however late a machine that is busy lets it be said
        later.start()
        assert ranks[0].had_left(1)
    later.join()
    assert not ranks[0].had_left(2)


@pytest.mark.parametrize(("rank", "missing"), [(0, "ranks 1, 2 did not come"), (1, "rank 0 did not come")])
def test_a_rank_that_does_not_come_is_named(store: HashStore, leaks_nothing: None, rank: int, missing: str) -> None:
    with Stopwatch() as watch, pytest.raises(fastload.GroupError, match=missing):
        sit(store, rank, timeout_s=0.3)
    assert watch.seconds < 3


def test_an_address_of_an_earlier_meeting_leads_nobody_astray(store: HashStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    store.set(_KEY, json.dumps(["127.0.0.1", port, "0" * 32]))
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(sit, store, 1, 2)
        time.sleep(0.3)
        late = pool.submit(sit, store, 0, 2)
        for each in (early.result(), late.result()):
            each.close()


@pytest.mark.parametrize("said", [*NESTED, b"5", b"[]", b'{"a": 1}'], ids=range(len(NESTED) + 3))
def test_nor_does_somebody_else_who_answers_there(store: HashStore, said: bytes) -> None:
    """Whatever has that port by now: it is not taken for rank 0, and rank 0 is found when it comes."""
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(3) as pool:
        store.set(_KEY, json.dumps(["127.0.0.1", other.getsockname()[1], "0" * 32]))
        early = pool.submit(sit, store, 1, 2)
        connection, _ = other.accept()
        with connection, suppress(OSError):  # it may have hung up already
            connection.sendall(said + b"\n")
            connection.recv(1 << 16)
        late = pool.submit(sit, store, 0, 2)
        for each in (early.result(), late.result()):
            each.close()


def test_what_is_said_in_another_encoding_is_another_language() -> None:
    """In UTF-16 a quote in a string is not the two bytes by which it is told: all that follows would not be counted."""
    flood = ('["\\"x"' + ",{}" * 1_000_000 + "]").encode("utf-16-le")
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as pool:
        said = pool.submit(there.sendall, flood + b"\n")
        with pytest.raises(fastload.GroupError, match="rank 0 speaks another language"):
            RendezvousConnection(here, 0).wait(60.0)
        said.result()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x05" + bytes(7) + b'["x"]', b"\xff" * 8])
def test_a_stranger_is_not_let_in(store: HashStore, said: bytes) -> None:
    check_not_let_in(store, said)


@pytest.mark.parametrize("said", NESTED, ids=range(len(NESTED)))
def test_a_stranger_who_says_much_is_not_heard_out(store: HashStore, said: bytes) -> None:
    check_not_let_in(store, len(said).to_bytes(8, "little") + said)


def test_a_stranger_who_drips_holds_nobody_up(store: HashStore, leaks_nothing: None) -> None:
    """However slowly he says it, rank 0 listens for two seconds, and not two from each byte on."""
    with ThreadPoolExecutor(1) as pool:
        host = pool.submit(sit, store, 0, 2, timeout_s=1.0)
        while not store.check([_KEY]):
            time.sleep(0.01)
        address, port, _ = json.loads(store.get(_KEY))
        with socket.create_connection((address, port)) as stranger, suppress(OSError):
            stranger.sendall((4000).to_bytes(8, "little"))
            while not host.done():
                time.sleep(0.5)
                stranger.sendall(b"x")
        with pytest.raises(fastload.GroupError, match="rank 1 did not come"):
            soon(host, 5.0)
    wait_rendezvous_over()


def check_not_let_in(store: HashStore, said: bytes) -> None:
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(sit, store, 0, 2)
        while not store.check([_KEY]):
            time.sleep(0.01)
        address, port, _ = json.loads(store.get(_KEY))
        with socket.create_connection((address, port)) as stranger:
            with suppress(OSError):  # it may have been turned away already
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
            guest = pool.submit(sit, store, 1, 2)
            for each in (host.result(), guest.result()):
                each.close()


def test_a_call_that_has_its_turn_after_another_one_waits_no_longer_than_it_may(store: HashStore) -> None:
    seat = GroupMember(0, 2, store, None)
    first, second = PendingCommunicator(seat, 3.0), PendingCommunicator(seat, 0.5)
    with pytest.raises(fastload.GroupError, match="another load of this group still waits for the other ranks"):
        second.take(NEVER)
    third = PendingCommunicator(seat, 10.0)
    with pytest.raises(fastload.GroupError, match="rank 1 did not come"):
        first.take(NEVER)
    for each in (sit(store, 1, 2), third.take(NEVER)):
        each.close()


def test_a_call_that_fails_before_its_turn_ends_no_other_one(store: HashStore, leaks_nothing: None) -> None:
    """It is told when it is its turn, to the call of the others that meets it."""
    seats = [GroupMember(rank, 2, store, None) for rank in range(2)]
    first, second = PendingCommunicator(seats[0], 10.0), PendingCommunicator(seats[0], 10.0)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(second.fail, ValueError("a keyword"))
        time.sleep(0.5)
        for each in (sit(store, 1, 2), first.take(NEVER)):
            each.close()
        with pytest.raises(fastload.GroupError, match="rank 0 failed: ValueError: a keyword"):
            sit(store, 1, 2)
        soon(failing, 5.0)
    wait_rendezvous_over()


def test_a_rank_that_knocks_once_more_when_all_are_there_is_let_go(store: HashStore) -> None:
    with ThreadPoolExecutor(1) as pool, ExitStack() as undo:
        host = pool.submit(sit, store, 0, 2)
        while not store.check([_KEY]):
            time.sleep(0.01)
        address, port, token = json.loads(store.get(_KEY))

        def connect(*hello: object) -> socket.socket:
            connection = undo.enter_context(socket.create_connection((address, port)))
            send_message(connection, json.dumps([token, *hello]).encode())
            return connection

        line = RendezvousConnection(connect(1), 0)
        assert line.wait(5.0) == ["welcome"]
        line.say([1, address, port, "here"])
        assert (line.wait(5.0) or [None])[0] == "roster"
        again = connect(1)
        connect(1, "data")
        undo.callback(soon(host, 5.0).close)
        assert again.recv(1) == b""


def test_a_rank_that_came_and_is_gone_is_missed_by_all(store: HashStore, leaks_nothing: None) -> None:
    """Killed while it waited for the last one, its connection reset: the last one hears of it as it comes."""
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(sit, store, 0)
        while not store.check([_KEY]):
            time.sleep(0.01)
        address, port, token = json.loads(store.get(_KEY))
        with socket.create_server((address, 0)) as server:
            gone_port = server.getsockname()[1]
        with socket.create_connection((address, port)) as gone:
            send_message(gone, json.dumps([token, 1]).encode())
            line = RendezvousConnection(gone, 0)
            assert line.wait(5.0) == ["welcome"]
            line.say([1, address, gone_port, "here"])
            time.sleep(0.5)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for missing in (host, pool.submit(sit, store, 2)):
            with pytest.raises(fastload.GroupError, match="rank 1 ended without a word"):
                soon(missing, 3.0)
    wait_rendezvous_over()


def test_whoever_was_told_that_there_is_no_load_comes_for_the_next_one(store: HashStore, leaks_nothing: None) -> None:
    with ThreadPoolExecutor(SIZE) as pool:
        with pytest.raises(fastload.GroupError, match="ranks 1, 2 did not come"):
            sit(store, 0, timeout_s=0.3)
        host, first = pool.submit(sit, store, 0), pool.submit(sit, store, 1, timeout_s=1.0)
        for rank in (1, 0, 2):
            told = {1: first, 0: host}.get(rank) or pool.submit(sit, store, rank)
            with pytest.raises(fastload.GroupError, match="waits for another rank in vain"):
                soon(told, 5.0)
        again = [pool.submit(sit, store, rank) for rank in (2, 1)]
        time.sleep(0.3)
        for each in (pool.submit(sit, store, 0), *again):
            soon(each, 5.0).close()


def test_extents_go_in_the_order_of_the_plan() -> None:
    """Threads finish in any order; what is due first is sent first."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outgoing, incoming = Outgoing(ours, [3, 5, 9]), Incoming(theirs)
        threads = [
            threading.Thread(target=outgoing.send, args=(number, [memoryview(bytes([number]) * 1000)]))
            for number in (9, 5, 3)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for number in (3, 5, 9):
            assert incoming.wait_next() == number
            room = bytearray(1000)
            incoming.receive([memoryview(room)[:10], memoryview(room)[10:]])
            assert bytes(room) == bytes([number]) * 1000
        for thread in threads:
            thread.join()
        assert outgoing.sent_bytes == incoming.received_bytes == 3000


def test_who_waits_for_a_turn_is_let_go_when_it_is_over() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outgoing = Outgoing(ours, [1, 2])
        thread = threading.Thread(target=outgoing.send, args=(2, [memoryview(b"never")]))
        thread.start()
        outgoing.close()
        thread.join(5)
        assert not thread.is_alive()
    assert not outgoing.sent_bytes


def test_what_ends_the_thread_that_listens_ends_the_load_on_all(ranks: list[Communicator]) -> None:
    """Here a word that nobody can read.

    Rank 0 is asked last: where it and another one have said their words, the last one may have all that it waits for
    before it hears that the load is over, and goes on to its next word.
    """
    ranks[1]._mesh.control[0].sendall(frame(FAIL, b"no pickle"))
    for rank in reversed(ranks):
        with pytest.raises(fastload.GroupError, match="rank 0 failed: UnpicklingError"):
            rank.all_gather(None)
