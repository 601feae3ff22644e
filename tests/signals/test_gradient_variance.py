"""Tests of `fedmem/signals/gradient_variance.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.signals.gradient_variance import part_of, standardise
from tests.signals.signals_helpers import Bench


def read_all(bench: Bench, models: list[Params], **fields: bool) -> list[dict[str, FloatArray]]:
    """The values at aggregates of rounds 0, 1, ..., of one run."""
    signals = ({"kind": "gradient_variance", **fields},)
    bench = Bench(signals, **bench.changes)
    found = []
    for number, params in enumerate(models):
        blocks = bench.reader.read([bench.transition(params, round_number=number)])
        found.append({block.name: block.values[0] for block in blocks})
    return found


def test_linear_model_has_the_deviation_of_its_weights() -> None:
    bench = Bench(model={"kind": "logistic"}, rounds=6)
    models = [bench.params(seed) for seed in range(7)]
    found = read_all(bench, models)
    # the slope of the logit of y is the row y of the weights, whatever the input
    weights = np.stack([params["output.weight"].double().numpy() for params in models])[:, bench.examples.targets]
    for ending, rounds in (("", slice(1, 7)), ("_early", slice(1, 3)), ("_late", slice(5, 7))):
        expected = weights[rounds].std(axis=0).mean(axis=1)
        np.testing.assert_allclose(found[-1][f"gradient_variance{ending}"], expected, rtol=1e-9)


def test_one_round_and_equal_rounds() -> None:
    bench = Bench(model={"kind": "logistic"}, rounds=6)
    same = read_all(bench, [bench.params(1)] * 4)
    assert np.isnan(same[1]["gradient_variance"]).all(), "a single round has no deviation"
    assert (same[3]["gradient_variance"] == 0.0).all()
    assert np.isnan(same[3]["gradient_variance_late"]).all()


def test_runs_and_clients_have_states_of_their_own() -> None:
    bench = Bench([{"kind": "gradient_variance"}], rounds=6)
    holder = int(bench.federation.audit.owner[0])
    names = {}
    for number in (1, 2):
        blocks = bench.reader.read(
            [
                bench.transition(bench.params(number), round_number=number, level="local", client=holder, run=0),
                bench.transition(bench.params(9), round_number=number, level="local", client=holder, run=1),
            ]
        )
        names = {block.name: block.values for block in blocks}
    values = names["gradient_variance"]
    own = bench.federation.audit.owner == holder
    assert (values[0, own] > 0).all()
    assert (values[1, own] == 0).all(), "the model of run 1 did not change"
    assert np.isnan(values[:, ~own]).all(), "examples of other clients are not read"


def test_is_standardised_within_each_class() -> None:
    bench = Bench(rounds=6)
    plain, scaled = (
        read_all(bench, [bench.params(seed) for seed in range(4)], by_class=by_class)[-1]["gradient_variance"]
        for by_class in (False, True)
    )
    for label in np.unique(bench.examples.targets):
        rows = bench.examples.targets == label
        if rows.sum() > 1:
            assert scaled[rows].mean() == pytest.approx(0.0, abs=1e-12)
            assert np.argsort(scaled[rows]).tolist() == np.argsort(plain[rows]).tolist()
    assert np.isnan(standardise(np.array([2.0, 2.0]), np.array([0, 0]))).all()


def test_thirds_cover_all_rounds() -> None:
    assert [part_of(number, 3) for number in (1, 2, 3)] == ["early", "middle", "late"]
    assert part_of(1, 1) == "late"


def test_the_initial_model_counts_at_no_aggregate() -> None:
    """An ordinary aggregate has a model at round 0 and one with personal layers of its owner has none."""
    bench = Bench([{"kind": "gradient_variance"}], rounds=6)
    owner = int(bench.federation.audit.owner[0])
    values = {}
    for client in (-1, owner):
        bench = Bench([{"kind": "gradient_variance"}], rounds=6)
        for number in range(3):
            shown = client if number else -1
            blocks = bench.reader.read([bench.transition(bench.params(number), round_number=number, client=shown)])
            values[client] = next(block.values[0, 0] for block in blocks if block.name == "gradient_variance")
    assert values[-1] == values[owner] > 0
