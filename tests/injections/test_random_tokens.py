"""Tests of `fedmem/injections/random_tokens.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.data import Space
from fedmem.errors import ComponentError
from fedmem.injections.random_tokens import RandomTokens
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING
from tests.injections.secret_helpers import (
    CHARACTERS,
    SPACE,
    corpus,
    plan,
)
from tests.narrowing import present


def test_random_tokens_have_the_frequencies_of_the_data() -> None:
    injection = RandomTokens(tokens=5)
    fresh = injection.references(4000, SPACE, np.random.default_rng(0))
    tokens = np.concatenate([fresh.inputs[:, :1], present(fresh.targets)[:, :4]], axis=1)
    counts = np.bincount(tokens.ravel(), minlength=len(CHARACTERS))
    there = SPACE.frequencies > 0
    assert counts[~there].sum() == 0
    assert stats.chisquare(counts[there], SPACE.frequencies[there] * counts.sum()).pvalue > 1e-3
    assert stats.chisquare(counts[there]).pvalue < 1e-3, "uniform ones would be seen"
    assert (present(fresh.targets)[:, 4:] == PADDING).all()
    assert (fresh.inputs[:, 1:5] == tokens[:, 1:]).all()
    planned = plan(injection)
    assert planned.extra is None
    assert (planned.examples.targets[:, :4] != PADDING).all()
    with pytest.raises(ComponentError, match="up to 42 tokens"):
        plan(RandomTokens(tokens=42))


def test_random_tokens_never_contain_the_unknown_token() -> None:
    words = Vocabulary.learn("words", ["b a"])
    data = corpus(words)
    inputs = np.where(np.arange(len(data.train))[:, None] % 2 == 0, 0, data.train.inputs)
    space = Space.of(replace(data, train=replace(data.train, inputs=inputs, targets=inputs)))
    assert space.frequencies[words.tokens.index(UNKNOWN)] > 0.4
    assert plan(RandomTokens(), space=space).examples.inputs[:, :5].min() > 0
