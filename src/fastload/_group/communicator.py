"""The ranks that load together, as one of them sees them."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastload._group.control_channel import ControlChannel
from fastload._group.heard import Heard
from fastload._group.link import Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from fastload._group.heard import Deadline
    from fastload._group.rendezvous import Mesh
    from fastload.errors import GroupError


class Communicator:
    """Our own connections to all peers, made for one load."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._heard = Heard(mesh.control)
        self._outgoing: dict[int, Outgoing] = {}
        self._is_closed = False
        self._leaves: frozenset[int] = frozenset()
        try:
            self._control = ControlChannel(self._mesh, self._heard, ended=self._end, left=self._drop)
        except BaseException:  # the others were told
            mesh.close()
            raise

    def hold_to(self, deadline: Deadline) -> None:
        """Let ``deadline`` bound what is waited for."""
        self._heard.deadline = deadline

    @property
    def rank(self) -> int:
        """This process's number in the group."""
        return self._mesh.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._mesh.size

    @property
    def nodes(self) -> tuple[int, ...]:
        """Per rank, the number of its machine."""
        return self._mesh.nodes

    def all_gather(self, value: object) -> dict[int, Any]:
        """See :meth:`~fastload._group.control_channel.ControlChannel.all_gather`."""
        return self._control.all_gather(value)

    def fail(self, error: BaseException) -> None:
        """See :meth:`~fastload._group.control_channel.ControlChannel.fail`."""
        self._control.fail(error)

    def check(self) -> None:
        """See :meth:`~fastload._group.heard.Heard.check`."""
        self._heard.check()

    @property
    def is_whole(self) -> bool:
        """True as long as nobody has failed."""
        return self._heard.is_whole

    def blame(self, peer: int) -> GroupError:
        """See :meth:`~fastload._group.control_channel.ControlChannel.blame`."""
        return self._control.blame(peer)

    def has_left(self, peer: int) -> bool:
        """See :meth:`~fastload._group.heard.Heard.has_left`."""
        return self._heard.has_left(peer)

    def had_left(self, peer: int) -> bool:
        """See :meth:`~fastload._group.heard.Heard.had_left`."""
        return self._heard.had_left(peer)

    def leave(self, account: object = None) -> None:
        """See :meth:`~fastload._group.control_channel.ControlChannel.leave`."""
        self._control.leave(account)

    def vouch(self, account: object = None) -> None:
        """See :meth:`~fastload._group.control_channel.ControlChannel.vouch`."""
        self._control.vouch(account)

    def find_account(self, peer: int) -> Any:
        """See :meth:`~fastload._group.heard.Heard.find_account`."""
        return self._heard.find_account(peer)

    def wait_vouched(self, peer: int) -> bool:
        """See :meth:`~fastload._group.heard.Heard.wait_vouched`."""
        return self._heard.wait_vouched(peer)

    def open_links(self, departures: Mapping[int, Sequence[int]], relays: Container[int]) -> dict[int, Outgoing]:
        """A way to each rank to which these extents will go; ``relays`` get them even when they have left."""
        self._outgoing = {peer: Outgoing(self._mesh.data[peer], numbers) for peer, numbers in departures.items()}
        self._leaves = frozenset(peer for peer in self._mesh.data if peer not in relays)
        for peer in filter(self.has_left, self._mesh.data):
            self._drop(peer)
        return self._outgoing

    def open_incoming(self, peer: int) -> Incoming:
        """What comes from ``peer``."""
        return Incoming(self._mesh.data[peer])

    def _drop(self, peer: int) -> None:
        """``peer`` has left: wake whoever is sending to it, unless it passes on what it gets."""
        if peer not in self._leaves:
            return
        if peer in self._outgoing:
            self._outgoing[peer].close()
        with suppress(OSError):
            self._mesh.data[peer].shutdown(socket.SHUT_WR)

    def _end(self) -> None:
        """Somebody failed: wake all threads that wait for a connection."""
        for outgoing in self._outgoing.values():
            outgoing.close()
        for connection in self._mesh.data.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connections, with a farewell where nobody failed. No thread may be using them any more."""
        if self._is_closed:
            return
        self._is_closed = True
        self._control.close()
        self._end()
        self._mesh.close()
