"""What the ranks of a group say to each other besides the weights: values, heartbeats, failures, farewells.

One thread listens to all peers and sends them a heartbeat every second. A peer whose connection ends without a
farewell, or that says nothing for some seconds, has failed; whoever notices, or fails itself, tells all others, so that
everybody ends with the first cause.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fastload._group.abort import FAIL, explain
from fastload._group.heard import BYE, LEAVE, VALUE, VOUCH
from fastload._group.heartbeat import BEAT, BEAT_S, KILLED_HINT, HeartbeatMonitor
from fastload._group.socket_limits import opening_connections
from fastload._group.wire import frame, take_frame
from fastload._thread import start_thread
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._group.heard import Heard
    from fastload._group.rendezvous import Mesh

_BEAT = BEAT[0]
_READ_BYTES = 1 << 20


class ControlChannel:
    """The control connections of one rank."""

    def __init__(self, mesh: Mesh, heard: Heard, *, ended: Callable[[], None], left: Callable[[int], None]) -> None:
        """``ended`` is called once, when the load is over because somebody failed; ``left`` with each rank that leaves.

        Both are called by whoever notices, and must not wait.
        """
        self._mesh = mesh
        self._heard = heard
        self._ended = ended
        self._when_left = left
        self._beat_s = 0.0
        self._sending = {peer: threading.Lock() for peer in mesh.control}
        self._monitors = {peer: HeartbeatMonitor(peer) for peer in mesh.control}
        self._received = {peer: bytearray() for peer in mesh.control}
        # A daemon, as all our threads: nothing of a load keeps the interpreter from ending.
        self._thread = threading.Thread(target=self._listen, name="fastload-group", daemon=True)
        try:
            self._begin()
        except BaseException as error:
            self.fail(error)
            raise

    def _begin(self) -> None:
        with ExitStack() as undo, opening_connections():
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._wake, self._waker = map(undo.enter_context, socket.socketpair())
            start_thread(self._thread)
            undo.pop_all()

    # What the load calls.

    def all_gather(self, value: object) -> dict[int, Any]:
        """Each rank's value of this round, its own included; without those that have left.

        Raises:
            GroupError: somebody failed.
            DeadlineError: the deadline is over.
        """
        self._tell_all(VALUE, pickle.dumps(value))
        values: dict[int, Any] = {self._mesh.rank: value}
        for peer in self._mesh.control:
            content = self._heard.wait_value(peer)
            if content is not None:
                values[peer] = pickle.loads(content)  # noqa: S301 - peers have shown the token of the rendezvous
        return {rank: values[rank] for rank in sorted(values)}

    def fail(self, error: BaseException) -> None:
        """This rank cannot go on: tell the others why, unless they know better."""
        self._conclude(explain(self._mesh.rank, error))

    def blame(self, peer: int) -> GroupError:
        """The error after a connection to ``peer`` broke: what is heard of it in the next moments, if anything is."""
        self._heard.wait_failure()
        broken = GroupError(f"the connection to rank {peer} broke", KILLED_HINT)
        self._conclude(broken)
        return self._heard.error or broken

    def leave(self, account: object = None) -> None:
        """This rank takes no more tensors, but goes on sending what others wait for.

        ``account``: what it says of itself.
        """
        self._tell_all(LEAVE, pickle.dumps(account))

    def vouch(self, account: object = None) -> None:
        """This rank has left, and all that it has sent since is proven; as :meth:`leave`."""
        self._tell_all(VOUCH, pickle.dumps(account))

    def close(self) -> None:
        """Take leave and end the connections."""
        if self._heard.is_whole:
            self._tell_all(BYE)
        self._heard.close()
        self._waker.send(b"!")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for each in (self._wake, self._waker):
            each.close()

    # Sending, from any thread.

    def _tell_all(self, kind: int, content: bytes = b"") -> None:
        for peer in self._mesh.control:
            self._tell(peer, kind, content)

    def _tell(self, peer: int, kind: int, content: bytes) -> None:
        try:
            with self._sending[peer]:
                self._mesh.control[peer].sendall(frame(kind, content))
        except OSError:
            return  # its end is noticed by the thread that listens, which knows whether it had said farewell

    def _beat(self, peer: int) -> None:
        """Never waits: whoever does not read is no reason not to notice that."""
        self._send_at_once(peer, bytes([_BEAT]), 0)  # somebody who is sending to it just now is a heartbeat as well

    # Listening, in a thread of its own.

    def _listen(self) -> None:
        try:
            self._hear_all()
        except BaseException as error:  # noqa: BLE001 - it travels to all ranks: without this thread there is no load
            self.fail(error)

    def _hear_all(self) -> None:
        with self._selector as selector:
            selector.register(self._wake, selectors.EVENT_READ, None)
            for peer, connection in self._mesh.control.items():
                selector.register(connection, selectors.EVENT_READ, peer)
            while not self._heard.is_over:
                for key, _ in selector.select(BEAT_S / 2):
                    if key.data is not None and not self._hear(key.data):
                        selector.unregister(key.fileobj)
                self._keep_time()

    def _keep_time(self) -> None:
        """Send heartbeats, look for those of others."""
        now_s = time.monotonic()
        is_due = now_s - self._beat_s >= BEAT_S
        self._beat_s = now_s if is_due else self._beat_s
        for peer in self._mesh.control.keys() - self._heard.gone:
            if is_due:
                self._beat(peer)
            try:
                self._monitors[peer].check()
            except GroupError as silent:
                self._conclude(silent)

    def _hear(self, peer: int) -> bool:
        """Take in what ``peer`` has sent; False if that was the end."""
        try:
            content = self._mesh.control[peer].recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            content = b""
        self._monitors[peer].hear()
        if content:
            self._received[peer] += content
            self._parse(peer)
            return True
        if peer not in self._heard.gone and not self._heard.has_left(peer):
            self._conclude(GroupError(f"rank {peer} ended without a word", KILLED_HINT))
        self._heard.end(peer)
        return False

    def _parse(self, peer: int) -> None:
        received = self._received[peer]
        while received:
            if received[0] == _BEAT:
                del received[:1]
                continue
            framed = take_frame(received)
            if framed is None:
                return
            self._take(peer, *framed)

    def _take(self, peer: int, kind: int, content: bytes) -> None:
        if kind == FAIL:
            self._conclude(pickle.loads(content))  # noqa: S301 - see all_gather
            return
        self._heard.take(kind, peer, content)
        if kind == LEAVE:
            self._when_left(peer)

    def _conclude(self, error: GroupError) -> None:
        """The load is over; only the first cause counts. Whoever learns it tells it, before it ends its connections."""
        if not self._heard.conclude(error):
            return
        for peer, connection in self._mesh.control.items():
            self._tell_failure(peer, pickle.dumps(error))
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for a rank that does not read
        self._ended()

    def _tell_failure(self, peer: int, content: bytes) -> None:
        """As :meth:`_tell`, but never waits long: a rank that is stopped must not keep the others from hearing."""
        self._send_at_once(peer, frame(FAIL, content), BEAT_S)

    def _send_at_once(self, peer: int, content: bytes, wait_s: float) -> None:
        """Or not at all, where others are sending to it for as long as ``wait_s``, or it does not read."""
        if not self._sending[peer].acquire(timeout=wait_s):
            return
        try:
            self._mesh.control[peer].send(content, socket.MSG_DONTWAIT)
        except OSError:
            return
        finally:
            self._sending[peer].release()
