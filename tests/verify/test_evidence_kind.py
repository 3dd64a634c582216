"""What evidence is called, and which is worth more."""

from __future__ import annotations

import json
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fastload._verify.evidence_kind import EvidenceKind, weakest

KINDS = st.sampled_from(EvidenceKind)


def test_what_several_are_known_by_is_the_worst_of_theirs() -> None:
    best_first = list(EvidenceKind)
    assert (best_first[0], best_first[-1]) == (EvidenceKind.SIGNATURE, EvidenceKind.NONE)
    for better, worse in combinations(best_first, 2):
        assert weakest({better, worse}) is worse


def test_nothing_is_known_of_nothing() -> None:
    assert weakest([]) is EvidenceKind.NONE


@given(st.lists(KINDS), st.lists(KINDS, min_size=1))
def test_more_files_are_known_by_no_more(some: list[EvidenceKind], others: list[EvidenceKind]) -> None:
    if some:
        assert weakest([weakest(some), weakest(others)]) is weakest([*some, *others])


def test_a_report_spells_it_as_a_word() -> None:
    assert json.dumps({"evidence": EvidenceKind.RECORDED}) == '{"evidence": "manifest (recorded)"}'
    assert f"{EvidenceKind.GIT_SHA1}" == "git-sha1"
