"""Frames, as they are taken off what has come so far."""

from __future__ import annotations

import pytest

from fastload._group.wire import frame, take_frame


@pytest.mark.parametrize("content", [b"", b"x", bytes(70_000)])
def test_a_frame_is_taken_when_all_of_it_has_come(content: bytes) -> None:
    whole = frame(87, content)
    received = bytearray()
    for byte in whole[:-1]:
        received.append(byte)
        if len(received) < 20 or len(received) > len(whole) - 20:
            assert take_frame(received) is None
    received += whole[-1:] + b"next"
    assert take_frame(received) == (87, content)
    assert received == b"next"
