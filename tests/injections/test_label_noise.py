"""Tests of `fedmem/injections/label_noise.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmem.federation.build import build
from fedmem.injections.label_noise import LabelNoise, apportion_mistakes
from tests.injections.atypical_helpers import clean, plan
from tests.tiny import tiny


def test_label_noise_has_its_rate_and_follows_the_sizes() -> None:
    injected = plan(LabelNoise(rate=0.1))
    assert np.bincount(injected.owner).tolist() == [12, 35, 23]  # 70 as 50 to 150 to 100
    assert not np.any(injected.examples.targets == clean(injected).targets)
    only = plan(LabelNoise(rate=0.1, clients=(1,), per_client=2))
    assert np.bincount(only.owner).tolist() == [0, 23 + 2]  # a third of 70


def test_label_noise_counts_rows_that_no_client_holds() -> None:
    injections = [{"kind": "label_noise", "rate": 0.1}, {"kind": "typical", "per_client": 10}]
    built = build(tiny(dataset={"kind": "digits"}, population=200, injections=injections))
    noisy = np.count_nonzero(built.audit.kind == "label_noise")
    assert noisy == 0.1 * sum(built.counts[name] for name in ("population", "audit", "replacements", "base")) == 150
    slots = sum(len(built.rows(0, client, 1)) for client in range(5))
    assert noisy / slots == pytest.approx(0.136, abs=1e-3), "not 0.1"


@given(st.integers(0, 500), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_dealing_adds_up_and_is_off_by_less_than_one(total: int, sizes: list[int]) -> None:
    counts = apportion_mistakes(total, np.array(sizes))
    assert counts.sum() == total
    assert np.all(np.abs(counts - total * np.array(sizes) / sum(sizes)) < 1)


def test_flips_are_uniform_or_to_the_next_class() -> None:
    uniform = plan(LabelNoise(rate=0.4))
    steps = (uniform.examples.targets - clean(uniform).targets) % 4
    counts = np.bincount(steps, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    following = plan(LabelNoise(rate=0.4, flips="next"))
    assert set(((following.examples.targets - clean(following).targets) % 4).tolist()) == {1}
