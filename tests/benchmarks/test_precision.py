"""Tests of `benchmarks/precision.py`."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.precision import HEADER, PLAIN, SCENARIO, TABLE, WAYS, standard_errors
from fedmem.scenario.loading import load_scenario
from tests.banks import coins, make_view


def test_each_way_is_a_scenario_of_its_own() -> None:
    loaded = {way: load_scenario(SCENARIO, changes) for way, changes in WAYS.items()}
    assert len({scenario.id for scenario in loaded.values()}) == len(WAYS)
    assert [way for way, scenario in loaded.items() if scenario.batches == "shared"] == ["shared batches (conditional)"]
    assert loaded["twice as many runs"].runs == 2 * loaded[PLAIN].runs


def test_twins_are_one_trial() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(8, 5, rng)
    margin = rng.normal(size=is_in.shape)
    alone = make_view(margin, is_in)
    both = make_view(np.tile(margin, (2, 1)), np.tile(is_in, (2, 1)))
    both = replace(both, audit=replace(both.audit, coin_row=np.tile(np.arange(8), 2)))
    (one,), (two,) = (list(standard_errors(view, adjusted=False)) for view in (alone, both))
    assert one[1] == pytest.approx(two[1])
    p = 1 / (1 + np.exp(-margin))
    squares = [v[c].var(ddof=1) / 4 + v[~c].var(ddof=1) / 4 for v, c in zip(p.T, is_in.T, strict=True)]
    assert one[1] == pytest.approx(np.sqrt(np.mean(squares)))


def test_the_table_has_every_way_and_plain_runs_as_one() -> None:
    with TABLE.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == HEADER
    assert list(dict.fromkeys(row[0] for row in rows)) == list(WAYS)
    assert all(row[-1] == "1.00" for row in rows if row[0] == PLAIN)
