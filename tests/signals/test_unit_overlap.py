"""Tests of `fedmem/signals/unit_overlap.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.signal import signal_declaration
from fedmem.errors import ScenarioError
from fedmem.estimation.set_overlap import expected_jaccard
from fedmem.signals.unit_overlap import UnitOverlap
from tests.signals.signals_helpers import Bench
from tests.signals.test_unit_ablation import CANARY, UNIT, lab_with_canary, planted
from tests.tiny import tiny

UNITS = 8


def renumber(params: Params, order: list[int]) -> Params:
    """The same function with its hidden units in another order."""
    return {
        "hidden1.weight": params["hidden1.weight"][order],
        "hidden1.bias": params["hidden1.bias"][order],
        "output.weight": params["output.weight"][:, order],
        "output.bias": params["output.bias"],
    }


def overlaps(lab: Bench, owner: Params, aggregate: Params, client: int, units: int = 1, **more: Any) -> FloatArray:
    """(n,) what the signal reads at the model of a client."""
    place = lab.transition(owner, level="local", client=client, **more)
    context = lab.context(place)
    context.know_models([lab.transition(aggregate)], {})
    return np.asarray(UnitOverlap(units=units).values(context)["unit_overlap"][0])


def test_the_same_planted_unit_overlaps_and_another_does_not() -> None:
    lab = lab_with_canary()
    client = int(lab.federation.audit.owner[CANARY])
    model = planted(lab)
    elsewhere = renumber(model, [*range(1, UNITS), 0])
    assert UNIT != UNITS - 1
    assert overlaps(lab, model, model, client)[CANARY] == pytest.approx(1 - 1 / UNITS)
    assert overlaps(lab, model, elsewhere, client)[CANARY] == pytest.approx(-1 / UNITS)
    # renumbering the units of both models is no change
    assert overlaps(lab, elsewhere, elsewhere, client)[CANARY] == pytest.approx(1 - 1 / UNITS)


def test_renumbering_all_units_of_a_run_changes_nothing() -> None:
    lab = lab_with_canary()
    owner, aggregate, order = lab.params(1), lab.params(2), [3, 0, 7, 1, 6, 2, 5, 4]
    before = overlaps(lab, owner, aggregate, 0, units=3)
    after = overlaps(lab, renumber(owner, order), renumber(aggregate, order), 0, units=3)
    np.testing.assert_allclose(before, after)
    assert not np.allclose(before, overlaps(lab, owner, renumber(aggregate, order), 0, units=3), equal_nan=True)


def test_unrelated_models_overlap_by_chance() -> None:
    lab = lab_with_canary()
    rows = lab.federation.audit.owner == 0
    values = [overlaps(lab, lab.params(2 * k), lab.params(2 * k + 1), 0, units=2)[rows].mean() for k in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    assert expected_jaccard(2, 2, UNITS) > 3 * np.std(values) / math.sqrt(len(values))


def test_a_model_without_a_unit_in_favour_overlaps_with_none() -> None:
    lab = lab_with_canary()
    nothing = {name: torch.zeros_like(value) for name, value in lab.params(1).items()}
    found = overlaps(lab, lab.params(1), nothing, 0)
    rows = lab.federation.audit.owner == 0
    assert (found[rows] == 0).all()
    assert np.isnan(found[~rows]).all(), "a client's model is read on its own examples"


def test_equal_units_are_taken_in_the_same_order() -> None:
    """Two copies of the planted unit share its effect; each model takes the first."""
    lab = lab_with_canary()
    model = planted(lab)
    for name in ("hidden1.weight", "hidden1.bias"):
        model[name][UNIT + 1] = model[name][UNIT]
    model["output.weight"][:, UNIT + 1] = model["output.weight"][:, UNIT]
    client = int(lab.federation.audit.owner[CANARY])
    assert overlaps(lab, model, model, client)[CANARY] == pytest.approx(1 - 1 / UNITS)


@pytest.mark.parametrize("broken", ["owner", "aggregate"])
def test_a_model_that_has_diverged_has_no_overlap(broken: str) -> None:
    lab = lab_with_canary()
    models = {"owner": lab.params(1), "aggregate": lab.params(2)}
    models[broken]["output.bias"][0] = math.nan
    assert np.isnan(overlaps(lab, models["owner"], models["aggregate"], 0)).all()


def test_round_0_and_other_runs_have_no_aggregate() -> None:
    lab = lab_with_canary()
    assert np.isnan(overlaps(lab, lab.params(1), lab.params(2), 0, round_number=0)).all()
    assert np.isnan(overlaps(lab, lab.params(1), lab.params(2), 0, run=1)).all()


def test_sets_never_hold_all_units_and_both_models_are_priced() -> None:
    lab = lab_with_canary()
    models = lab.params(1), lab.params(2)
    np.testing.assert_array_equal(overlaps(lab, *models, 0, units=7), overlaps(lab, *models, 0, units=99))
    rows = 1 + min(20, len(lab.federation.population))
    assert UnitOverlap(units=3).passes_in(lab.federation) == (2 * 3 * rows * 4, 0)
    assert signal_declaration(UnitOverlap()).reads_update, "saved models have no counterpart"


def test_it_needs_a_population_and_is_of_clients() -> None:
    with pytest.raises(ScenarioError, match="population"):
        tiny(signals=[{"kind": "unit_overlap"}], population=0)
    with pytest.raises(ScenarioError, match="levels"):
        tiny(signals=[{"kind": "unit_overlap", "levels": ["global"]}])
