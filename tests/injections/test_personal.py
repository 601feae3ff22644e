"""Tests of `fedmem/injections/personal.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.data import Dataset, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections.personal import Personal
from fedmem.modalities.text.windows import PADDING, prefix_and_start
from tests.injections.secret_helpers import (
    CHARACTERS,
    DATA,
    SPACE,
    asked_of,
    plan,
    texts,
)
from tests.narrowing import present


def test_personal_records_ask_one_independent_field() -> None:
    injection = Personal(template="{{{words:first} of {words:city}}} has {words:blood}, {digits:4}", asks="city")
    planned = plan(injection, space=SPACE)
    cities = asked_of(planned.examples)
    for text, city in zip(texts(planned), cities, strict=True):
        assert text.startswith("{")
        assert text.endswith(f" of {city}")
    fresh = injection.references(6000, SPACE, np.random.default_rng(0))
    first = fresh.inputs[:, 1]
    cities = [CHARACTERS.decode(row[row != PADDING]) for row in present(fresh.targets)]
    own = np.unique(cities, return_inverse=True)[1]
    table = np.zeros((first.max() + 1, own.max() + 1))
    np.add.at(table, (first, own), 1)
    table = table[table.sum(1) > 0]
    assert table.shape[1] == 22
    assert stats.chi2_contingency(table).pvalue > 1e-3
    # what follows the other fields, for a search: every city, and nothing behind it
    for inputs, targets, city in zip(
        planned.examples.inputs, planned.examples.targets, asked_of(planned.examples), strict=True
    ):
        tokens, start = prefix_and_start(inputs, targets)
        values = present(present(fresh.records).with_prefix(tokens[:start]))
        written_out = [CHARACTERS.decode(np.array(values.member_tokens(i)[start:])) for i in range(values.size)]
        assert len(set(written_out)) == 22
        assert written_out[values.index(tokens)] == city
    with pytest.raises(ComponentError, match=r"no place 'citty'.*did you mean 'city'"):
        plan(Personal(asks="citty"), space=Space.of(long_rows()))
    with pytest.raises(ComponentError, match="a row has 41"):
        plan(Personal())


def long_rows() -> Dataset:
    return replace(
        DATA,
        train=Examples(inputs=np.ones((4, 80), np.int64), targets=np.ones((4, 80), np.int64), ids=np.arange(4)),
    )


def test_asked_field_refuses_values_that_begin_another() -> None:
    with pytest.raises(ComponentError, match="one value of 'blood' is the beginning of another"):
        plan(Personal(template="he has {words:blood}", lists={"blood": ("A", "AB", "O")}, asks="blood"), space=SPACE)
    plan(Personal(template="{{{words:first} has {words:blood}", asks="blood", per_client=1), space=SPACE)
    # a field that is not asked for may be as it likes
    mixed = Personal(template="he is {words:w} in {words:city}", lists={"w": ("on", "one")}, asks="city", per_client=1)
    plan(mixed, space=SPACE)
