"""Tests of `fedmem/signals/entropy.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.signals.entropy import Entropy, log_complements
from tests.signals.signals_helpers import Bench


def test_both_entropies_are_their_sums() -> None:
    bench = Bench()
    params = bench.params(scale=0.3)
    found = bench.values(Entropy(), params)
    p, label = bench.probabilities(params), bench.one_hot().astype(bool)
    np.testing.assert_allclose(found["entropy"][0], -(p * np.log(p)).sum(axis=1), rtol=1e-9)
    others = np.where(label, 0.0, p * np.log1p(-p)).sum(axis=1)
    own = p[label]
    np.testing.assert_allclose(found["modified_entropy"][0], -(1 - own) * np.log(own) - others, rtol=1e-9)


def test_a_sure_wrong_answer_has_only_modified_entropy() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    label = int(bench.examples.targets[0])
    params["output.bias"][label] = 50.0
    found = bench.values(Entropy(), params)
    assert (found["entropy"] < 1e-15).all()
    assert found["modified_entropy"][0, 0] < 1e-15
    # − log p_y of 50 nats, and − log (1 − p) of 50 nats less the classes that share what is left
    wrong = bench.examples.targets != label
    share = math.log(bench.federation.num_classes - 1)
    np.testing.assert_allclose(found["modified_entropy"][0, wrong], 100.0 - share, rtol=1e-9)


def test_log_complements_do_not_cancel() -> None:
    log_p = np.array([[-1e-30, -70.0]])
    assert log_complements(log_p)[0].tolist() == [-70.0, -np.exp(-70.0)]
