"""What `make quick` leaves out is there, and slow by what pytest said of it."""

from __future__ import annotations

import re
from pathlib import Path

from list_slow import find_slow

_CHECKOUT = Path(__file__).parents[1]


def test_each_test_that_is_left_out_exists() -> None:
    """One that was renamed would be in the quick suite again, and nobody would know why that takes so long."""
    listed = (_CHECKOUT / "tests/slow.txt").read_text(encoding="utf-8").splitlines()
    assert listed == sorted(set(listed))
    for name in listed:
        path, *_, function = name.split("::")
        source = (_CHECKOUT / path).read_text(encoding="utf-8")
        assert re.search(rf"def {function}\(|^{function} =", source, re.MULTILINE) or function == "runTest", name


def test_a_function_is_slow_by_its_slowest_case_with_what_it_takes_to_begin() -> None:
    log = """
1.20s call     tests/a.py::test_of_two_phases[x y]
0.20s setup    tests/a.py::test_of_two_phases[x y]
1.20s call     tests/a.py::test_of_two_cases[1]
1.20s call     tests/a.py::test_of_two_cases[2]
9.00s call     tests/b.py::Test::test_long
"""
    assert find_slow(log) == ["tests/a.py::test_of_two_phases", "tests/b.py::Test::test_long"]
