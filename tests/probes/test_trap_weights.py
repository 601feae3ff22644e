"""Tests of `fedmem/probes/trap_weights.py`: units that few rows activate."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.probes.trap_weights import TrapWeights, _scale
from tests.probes.dishonest_helpers import SUMS, measured, values
from tests.probes.test_imprint import layer_of

TRAPS = {"kind": "trap_weights", "runs": 4, "victims": 4}


def test_a_row_activates_a_unit_once_in_a_batch() -> None:
    rng = np.random.default_rng(2)
    population, others = rng.random((2, 200, 12))
    plan = TrapWeights()._plan(population, layer_of(400, 12), 10, rng)
    for rows in (population, others):
        assert (rows @ plan.weight.T > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert ((plan.weight > 0).sum(axis=1) == 6).all()
    assert not plan.bias.any()
    assert plan.following is None


def test_the_scale_is_a_quantile_of_what_would_activate() -> None:
    below, above = np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.ones((2, 2))
    assert [((below + _scale(below, above, share) * above) > 0).sum() for share in (0.3, 0.6, 0.9)] == [1, 2, 3]
    assert _scale(below, np.zeros((2, 2)), 0.5) == 1.0
    assert TrapWeights(scale=0.5)._plan(np.ones((3, 4)), layer_of(5, 4), 2, np.random.default_rng(0)).weight.max() < 2


def test_rows_that_activate_a_unit_alone_are_exact_as_expected() -> None:
    rows = measured({**TRAPS, "levels": ["local", "sum"]}, runs=8, **SUMS)
    for view, clients in (("message", None), ("sum", 2)):
        labels = {"view": view, "server": "dishonest"} | ({} if clients is None else {"clients": clients})
        exact, alone = (values(rows, metric, **labels) for metric in ("exact_rows", "isolated_rows"))
        expected = values(rows, "isolated_rows_expected", **labels)
        assert np.mean(exact) == pytest.approx(np.mean(alone), abs=0.08), "the logits decide how large slopes are"
        assert np.mean(alone) == pytest.approx(np.mean(expected), abs=0.1)
        assert np.mean(alone) > 0
    assert set(values(rows, "exact", coin="out")) <= {0.0}


def test_without_enough_population_nothing_is_expected() -> None:
    rows = measured(TRAPS, population=7)
    assert np.isnan(values(rows, "isolated_rows_expected")).all()
    assert values(rows, "isolated_rows_expected")
