"""fastload against the reference on files that are almost valid: they may differ only where docs/format.md says so.

``benchmarks/fuzz_header.py`` does the same with as many mutants as one has time for.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from judges import STRICTER_RULES, Verdict, compare, declared_rules
from mutants import mutate
from writing import shard_bytes

MUTANTS = 20_000


@pytest.fixture(scope="module")
def verdicts() -> Counter[Verdict]:
    """What came of each mutant."""
    chance = Random(20_000)  # noqa: S311 - the same mutants every time
    counted: Counter[Verdict] = Counter()
    for _ in range(MUTANTS):
        mutant = mutate(chance)
        verdict = compare(mutant)
        assert verdict.kind != "DISAGREEMENT", (verdict.detail, mutant)
        counted[verdict] += 1
    return counted


def test_they_differ_only_where_declared(verdicts: Counter[Verdict]) -> None:
    """The assertion is where the verdicts are made, so that it can show the mutant."""
    assert verdicts.total() == MUTANTS


def test_the_mutants_are_worth_it(verdicts: Counter[Verdict]) -> None:
    """Many are valid, and those that are not break many rules: an engine that made garbage would prove nothing."""
    accepted = verdicts[Verdict("accepted by both", "")]
    reasons = [count for (kind, _), count in verdicts.items() if kind == "rejected by both"]
    assert accepted > MUTANTS / 10
    assert len(reasons) >= 35
    assert max(reasons) < MUTANTS / 8


def test_every_declared_rule_was_met(verdicts: Counter[Verdict]) -> None:
    assert {detail for kind, detail in verdicts if kind == "stricter"} == set(STRICTER_RULES)


def test_the_declared_list_does_not_cover_what_it_should_not() -> None:
    """It is what excuses fastload, so it must not excuse too much."""
    innocent = b'{"__metadata__":{},"a":{"dtype":"U8","shape":[%b1],"data_offsets":[0,1],"x":[{"y":9e307},{"y":1}]}}'
    assert declared_rules(shard_bytes(innocent % (b"1," * 63), b"x")) == frozenset()
    assert declared_rules(shard_bytes(innocent % (b"1," * 64), b"x")) == {"more than 64 dimensions"}
