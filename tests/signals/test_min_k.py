"""Tests of `fedmem/signals/min_k.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedmem.signals.min_k import MinK, z_scores
from tests.signals.signals_helpers import Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(
        dataset={"kind": "shakespeare", "length": 12, "max_chars": 400},
        model={"kind": "char_rnn", "hidden": 8},
        injections=[{"kind": "typical"}, {"kind": "secret", "template": "pin {digits:3}"}],
        references=5,
        clients=3,
        sampler={"kind": "everyone"},
        population=5,
    )


def test_z_score_by_hand_on_three_tokens() -> None:
    """p = ½, ¼, ¼: μ = −1.5 log 2 and σ = ½ log 2."""
    log_p = np.log(np.array([[0.5, 0.25, 0.25]] * 3))
    own = log_p[0]
    np.testing.assert_allclose(z_scores(own, log_p), [1.0, -1.0, -1.0])
    skewed = np.array([0.7, 0.2, 0.1])
    mean = float((skewed * np.log(skewed)).sum())
    deviation = math.sqrt(float((skewed * np.log(skewed) ** 2).sum()) - mean**2)
    found = z_scores(np.log(skewed), np.log(np.stack([skewed] * 3)))
    np.testing.assert_allclose(found, (np.log(skewed) - mean) / deviation)


def test_distributions_without_spread_are_decided() -> None:
    uniform = np.full((1, 4), -math.log(4))
    assert z_scores(uniform[0, :1], uniform) == pytest.approx(0, abs=1e-6)
    sure = np.array([[0.0, -np.inf, -np.inf]])
    assert z_scores(np.array([0.0]), sure).tolist() == [0.0]
    assert z_scores(np.array([-800.0]), np.array([[0.0, -800.0, -900.0]])) < -1e6
    assert np.isnan(z_scores(np.array([np.nan]), np.full((1, 3), np.nan))).all()


def test_values_are_those_of_a_loop_over_tokens(bench: Bench) -> None:
    params = bench.params(scale=0.5)
    found = bench.values(MinK(k=0.4), params)
    logits, examples = bench.context(bench.transition(params)).logits()[0], bench.examples
    for row in range(len(examples)):
        plain, scored = [], []
        for place in np.flatnonzero(examples.targets[row] >= 0):
            p = torch.softmax(torch.tensor(logits[row, place]), dim=0).numpy()
            mean = (p * np.log(p)).sum()
            own = math.log(p[examples.targets[row, place]])
            plain.append(own)
            scored.append((own - mean) / math.sqrt((p * (np.log(p) - mean) ** 2).sum()))
        count = max(1, math.floor(0.4 * len(plain)))
        assert found["min_k"][0, row] == pytest.approx(np.mean(sorted(plain)[:count]))
        assert found["min_k_plus_plus"][0, row] == pytest.approx(np.mean(sorted(scored)[:count]))


def test_whole_texts_give_minus_the_loss(bench: Bench) -> None:
    params = bench.params(scale=0.5)
    losses = bench.losses(params, torch.from_numpy(bench.examples.inputs)).numpy()
    np.testing.assert_allclose(bench.values(MinK(k=1.0), params)["min_k"][0], -losses, rtol=1e-5)
