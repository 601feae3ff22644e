"""Tests of `fedmem/federation/row_budget.py`."""

from __future__ import annotations

import json
import re
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets.synthetic import Synthetic
from fedmem.federation import build
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.models.small_cnn import SmallCNN
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.scenario.loading import parse_scenario
from tests.federation.build_helpers import scenario
from tests.narrowing import present
from tests.tiny import TINY


class OneLabelEach:
    """Client k holds the rows of label k."""

    leave_out = True

    def assign(self, data: Dataset, rows: IntArray, clients: int, rng: np.random.Generator) -> list[IntArray]:
        return [rows[data.train.labels[rows] == client] for client in range(clients)]


@pytest.mark.statistical
def test_replacement_rows_have_the_label_shares_of_their_owner() -> None:
    built = build.build(
        scenario(
            runs=20,
            clients=2,
            dataset=Synthetic(rows=3000, test=10, classes=3),
            partition=Dirichlet(alpha=1.0),
            injections=(Typical(per_client=100),),
        )
    )
    labels = built.store.targets
    for client in range(2):
        own = np.bincount(labels[built.base[client]], minlength=3) / len(built.base[client])
        fill = built.replacement[:, built.audit.owner == client]
        counts = np.bincount(labels[fill[fill >= 0]], minlength=3)
        assert counts.sum() == 1000
        assert stats.chisquare(counts, 1000 * own).pvalue > 1e-3
        assert stats.chisquare(counts, np.full(3, 1000 / 3)).pvalue < 1e-3


def test_replacement_rows_differ_between_runs() -> None:
    built = build.build(scenario(runs=10))
    assert len({tuple(sorted(row[row >= 0].tolist())) for row in built.replacement}) == 10


def test_budget_adds_up_and_needs_no_network() -> None:
    assert build.budget(scenario(model=SmallCNN(groups=3))) == {
        "test": 50,
        "population": 40,
        "audit": 15,
        "replacements": 35,
        "reserved_rows": 0,
        "base": 310,
        "total": 450,
    }
    assert build.budget(scenario(exclusion="remove"))["replacements"] == 0
    assert build.budget(scenario(population=500))["base"] == -150


def test_replacement_rows_have_the_labels_of_their_own_client() -> None:
    """Each client holds one label of its own, so what stands in for its outs has that label, too."""
    built = build.build(
        scenario(
            runs=4,
            clients=3,
            dataset=Synthetic(rows=900, test=10, classes=3),
            partition=OneLabelEach(),
            # of 180 rows in reserve half are used, so that none of the labels runs out
            injections=(RandomPattern(per_client=60),),
        )
    )
    labels = built.store.targets
    for client in range(3):
        assert set(labels[built.base[client]].tolist()) == {client}
        fill = built.replacement[:, built.audit.owner == client]
        assert len(fill[fill >= 0]) == 120
        assert set(labels[fill[fill >= 0]].tolist()) == {client}


def test_replacement_rows_are_drawn_again_in_each_run() -> None:
    """A copy that is out in two runs has two fill-ins; the same ones would make the runs agree on them."""
    built = build.build(scenario(runs=10, dataset=Synthetic(rows=2000, test=50)))
    same = pairs = 0
    for own in built.replacement.T:
        fill = own[own >= 0].tolist()
        assert len(fill) == 5
        same += sum(one == other for one, other in combinations(fill, 2))
        pairs += 10
    assert pairs == 10 * built.replacement.shape[1]
    assert same / pairs < 0.1


@pytest.mark.parametrize("population", [None, 200])
def test_too_large_populations_get_a_value_that_works(population: int | None) -> None:
    """The default is named as such; the proposed value leaves clients most of the training rows."""
    table = {"dataset": {"kind": "synthetic", "rows": 120, "test": 20}, "injections": [{"kind": "typical"}]}
    content = {**TINY, **table, "population": population}
    small = parse_scenario(json.dumps({key: value for key, value in content.items() if value is not None}))
    (problem,) = build.check(small)
    assert ("200 by default" in problem.message) == (population is None)
    value = present(re.search(r"better write `population: (\d+)`", problem.message))[1]
    assert int(value) == 24
    assert build.check(small.model_copy(update={"population": int(value)})) == []
