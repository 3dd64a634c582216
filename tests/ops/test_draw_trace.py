"""The picture of a trace: every span a box, in its lane, where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import fastload
from draw_trace import draw
from fastload.ops.bench.checkpoint import list_tiny, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_every_span_of_a_load_is_drawn_inside_of_the_picture(tmp_path: Path) -> None:
    write_checkpoint(str(tmp_path), list_tiny(50), shards=2)
    with fastload.stream(tmp_path) as stream:
        trace = stream.start_trace()
        assert sum(1 for _ in stream) == 50
    picture = ET.fromstring(draw(trace.to_dict()["traceEvents"]))  # noqa: S314 - our own
    boxes = list(picture.iter("{http://www.w3.org/2000/svg}rect"))
    tips = [box.findtext("{http://www.w3.org/2000/svg}title") for box in boxes]
    assert len([tip for tip in tips if tip]) == len(trace.spans)
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for box in boxes:
        assert 0 <= float(box.attrib["x"]) <= float(box.attrib["x"]) + float(box.attrib["width"]) <= width + 1
        assert 0 <= float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"stages", "caller", "fastload-0", "read", "0 ms"} <= texts
