"""Tests of `fedmem/signals/probabilities.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.signal import per_class_of
from fedmem.errors import ScenarioError
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.federation import build as federations
from fedmem.results.read import read_bank
from fedmem.signals.probabilities import Probabilities
from tests.narrowing import present
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny


def test_is_the_softmax_of_logits() -> None:
    bench = Bench()
    params = bench.params()
    found = bench.values(Probabilities(), params)["probability"]
    np.testing.assert_allclose(found[0], bench.probabilities(params), atol=1e-12)


def test_a_diverged_model_has_no_probabilities() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    params["output.bias"][:] = math.nan
    assert np.isnan(bench.values(Probabilities(), params)["probability"]).all()


def test_owners_alone_are_read_if_asked_for() -> None:
    bench = Bench()
    context = bench.context(bench.transition(bench.params(), level="local", client=0))
    found = Probabilities(others=False).values(context)["probability"]
    assert (np.isnan(found).all(axis=-1) == ~context.is_owner()).all()
    assert not np.isnan(Probabilities().values(context)["probability"]).any()


def test_views_have_all_classes_that_give_the_stored_margin(tmp_path: Path) -> None:
    scenario = tiny(signals=[{"kind": "probabilities"}], estimators=[{"kind": "memorisation"}], runs=4)
    folder = fedmem.run(scenario, out=tmp_path)
    assert not any(row.source == "probabilities" for row in fedmem.read(folder).rows())
    bank = read_bank(folder)
    for view in views(bank, permute_coins(bank.audit, 2, np.random.default_rng(0))):
        probability = present(per_class_of(view.signals, "probability"))
        label = np.broadcast_to(bank.audit.examples.labels[:, None], (*view.margin.shape, 1))
        p = np.take_along_axis(probability, label, axis=-1)[..., 0]
        np.testing.assert_allclose(np.log(p / (1 - p)), view.margin, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(probability.sum(axis=-1)[~np.isnan(view.margin)], 1.0, rtol=1e-12)


def test_two_of_them_and_passages_are_refused() -> None:
    twice = [{"kind": "probabilities"}, {"kind": "probabilities", "every": 2}]
    with pytest.raises(ScenarioError, match=r"signals\[0\] reads probability as well"):
        tiny(signals=twice)
    texts = fedmem.load_scenario("text_quickstart", ["rounds=2", "signals=[{kind: probabilities}]"])
    with pytest.raises(ScenarioError, match=r"one value for each class of an example, but .* has passages"):
        federations.require(texts, federations.load(texts))
