"""Tests of `fedmem/probes/_secrets.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.probes._secrets import questions
from tests.language import digits, text_federation
from tests.narrowing import present


def test_secrets_with_one_beginning_are_one_question() -> None:
    federation = text_federation()
    (one,) = questions(federation, range(6), None)
    assert one.prefix == (0,)
    assert one.rests.shape == (6, 3)
    assert [digits(3).member_tokens(i) for i in one.number] == [one.prefix + tuple(rest) for rest in one.rests.tolist()]
    longer = questions(federation, range(6), 2)
    assert {len(question.prefix) for question in longer} == {2}
    assert all(question.space == digits(3).with_prefix(question.prefix) for question in longer)
    assert all(question.space and question.space.size == digits(3).size // 5 for question in longer)
    for question in longer:
        assert [present(question.space).member_tokens(i) for i in question.number] == [
            question.prefix + tuple(rest) for rest in question.rests.tolist()
        ]
    assert questions(federation, range(6), 4) == []


def test_rows_that_ask_for_nothing_are_no_questions() -> None:
    federation = text_federation()
    examples = federation.audit.examples
    blank = replace(examples, targets=np.where(np.arange(6)[:, None] == 2, -1, examples.targets))
    asked = questions(replace(federation, audit=replace(federation.audit, examples=blank)), range(6), None)
    assert [question.subjects for question in asked] == [(0, 1, 3, 4, 5)]
