"""Tests of `fedmem/attacks/shokri.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks.shokri import Shokri, discriminants, predicted_features
from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Signals, attack_declaration
from tests.attacks.membership_helpers import everything, null_aucs
from tests.banks import coins


def read(probability: FloatArray, is_in: BoolArray, labels: IntArray) -> Signals:
    named = {f"probability.{label}": probability[..., label] for label in range(probability.shape[2])}
    return Signals(margin=np.zeros(is_in.shape), is_in=is_in, labels=labels, signals=named)


def softmax(logits: FloatArray) -> FloatArray:
    return np.asarray(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))


def test_discriminant_equals_a_loop_over_what_it_may_learn_from() -> None:
    rng = np.random.default_rng(0)
    features, is_in = rng.normal(size=(8, 4, 2)), coins(8, 4, rng)
    features[3, 1] = np.nan
    found = discriminants(features)(is_in)
    for r in range(8):
        for j in range(4):
            if (r, j) == (3, 1):
                assert np.isnan(found[r, j])
                continue
            cells = [(k, i) for k in range(8) for i in range(4) if k != r and i != j and (k, i) != (3, 1)]
            sides = [np.array([features[c] for c in cells if is_in[c] == side]) for side in (True, False)]
            scatter = sum(np.cov(side.T, bias=True) * len(side) for side in sides) / (len(cells) - 2)
            covariance = 0.9 * scatter + 0.1 * np.diag(np.diag(scatter)) + 1e-9 * np.eye(2)
            inside, outside = (side.mean(0) for side in sides)
            expected = (inside - outside) @ np.linalg.solve(covariance, features[r, j] - (inside + outside) / 2)
            assert found[r, j] == pytest.approx(expected)


def test_normal_features_reach_the_best_auc() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(32, 30, rng)
    features = rng.normal(size=(32, 30, 2)) + is_in[..., None] * np.array([1.0, -0.5])
    found = everything(discriminants(features)(is_in), is_in)
    assert found == pytest.approx(norm.cdf(np.sqrt(1.25 / 2)), abs=0.04)


def test_classes_have_classifiers_of_their_own() -> None:
    rng = np.random.default_rng(2)
    is_in, labels = coins(16, 12, rng), np.arange(12) % 2
    probability = softmax(rng.normal(size=(16, 12, 3)))
    found = Shokri().scores(read(probability, is_in, labels))
    for label in (0, 1):
        columns = np.flatnonzero(labels == label)
        alone = Shokri().scores(read(probability[:, columns], is_in[:, columns], labels[columns]))
        np.testing.assert_allclose(found[:, columns], alone)
    pooled = discriminants(predicted_features(probability, labels, 3))(is_in)
    assert not np.allclose(found, pooled, equal_nan=True)


def test_features_are_the_label_and_the_largest_others() -> None:
    p = np.array([[[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]])
    found = np.exp(predicted_features(p, np.array([3, 3]), 2))
    np.testing.assert_allclose(found, [[[0.4, 0.3, 0.2], [0.1, 0.4, 0.3]]])
    assert predicted_features(p, np.array([0, 0]), 9).shape == (1, 2, 4)
    assert np.isfinite(predicted_features(np.array([[[1.0, 0.0]]]), np.array([1]), 1)).all()


@pytest.mark.parametrize("runs", [8, 16])
def test_no_memorisation_is_near_chance_from_8_runs(runs: int) -> None:
    rng, scored = np.random.default_rng(3), []
    for _ in range(60):
        is_in, labels = coins(runs, 20, rng), np.arange(20) % 2
        logits = 2 * rng.normal(size=(20, 3)) + rng.normal(size=(runs, 20, 3))
        scored.append((Shokri().scores(read(softmax(logits), is_in, labels)), is_in))
    mean, error = null_aucs(scored)
    assert error < 0.008
    assert abs(mean - 0.5) < 3 * error + 0.005
    declared = attack_declaration(Shokri())
    assert (declared.min_runs, declared.null_auc, declared.reads_coins) == (8, None, True)


def test_nothing_is_scored_without_probabilities() -> None:
    is_in = coins(8, 3, np.random.default_rng(4))
    assert np.isnan(Shokri().scores(Signals(margin=np.zeros((8, 3)), is_in=is_in))).all()
