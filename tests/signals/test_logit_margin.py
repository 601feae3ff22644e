"""Tests of `fedmem/signals/logit_margin.py`."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.signals.logit_margin import LogitMargin
from tests.signals.signals_helpers import Bench


def test_is_the_logit_of_the_label_less_the_best_other() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    classes = bench.federation.num_classes
    params["output.bias"][:] = torch.arange(classes).float()
    found = bench.values(LogitMargin(), params)["logit_margin"][0]
    targets = bench.examples.targets
    best_other = np.where(targets == classes - 1, classes - 2, classes - 1)
    assert found.tolist() == (targets - best_other).tolist()


def test_passages_have_the_mean_over_tokens_that_are_asked() -> None:
    bench = Bench(
        dataset={"kind": "shakespeare", "length": 12},
        model={"kind": "char_rnn", "hidden": 8},
        injections=[{"kind": "typical", "per_client": 2}],
        clients=3,
        sampler={"kind": "everyone"},
        population=5,
    )
    params = bench.params(scale=0.2)
    found = bench.values(LogitMargin(), params)["logit_margin"][0]
    logits, targets = bench.context(bench.transition(params)).logits()[0], bench.examples.targets
    for row in range(len(targets)):
        margins = []
        for place in np.flatnonzero(targets[row] >= 0):
            others = np.delete(logits[row, place], targets[row, place])
            margins.append(logits[row, place, targets[row, place]] - others.max())
        assert np.isclose(found[row], np.mean(margins))
