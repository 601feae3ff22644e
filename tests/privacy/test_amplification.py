"""Tests of `fedmem/privacy/amplification.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError, ScenarioError
from fedmem.privacy import spending
from fedmem.samplers.by_size import BySize
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.uniform import Uniform
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.neighbours import epsilon_at_least
from tests.privacy.mechanisms_helpers import NOISY, POISSON, mechanism_of, only, private
from tests.toys import OneOf, Together


@pytest.mark.parametrize(
    ("sampler", "cohort", "sampling", "rate", "adjacency"),
    [
        (POISSON, 2.5, "poisson", 0.5, "add_remove"),
        ({"kind": "uniform", "size": 2}, 2.0, "fixed_size", 0.4, "zero_out"),
        ({"kind": "everyone"}, 5.0, "everyone", 1.0, "add_remove"),
        ({"kind": "cyclic", "size": 2}, 2.0, "everyone", 1.0, "zero_out"),
    ],
)
def test_samplers_get_the_amplification_that_is_proven(
    sampler: dict[str, Any], cohort: float, sampling: str, rate: float, adjacency: str
) -> None:
    found = only(private(sampler=sampler, strategy={**NOISY, "expected_cohort_size": cohort}))
    assert (found.sampling, found.rate, found.adjacency) == (sampling, rate, adjacency)
    assert (found.count, found.unit, found.delta, found.noise_multiplier) == (4, "client", 1e-5, 1.0)


def test_probabilities_are_no_declaration() -> None:
    """All send the clip. Rows of one client decide whether the sum is always 5, or 0 or 10: 9.997 was printed."""
    together = (((0.5, 0.0), (0.5, 10.0)), ((1.0, 5.0),))
    assert epsilon_at_least([(together, 1.0, 1)], 1e-5, 1e-3) >= 32.41
    sampler, strategy = Together(), DpFedAvg(expected_cohort_size=5)
    rows = [np.full(10, 50), np.r_[200, np.full(9, 50)]]
    sizes = [{len(sampler.cohort(1, History.start(one), np.random.default_rng(s))) for s in range(20)} for one in rows]
    assert sizes == [{5}, {0, 10}]
    for part in (sampler, Dropout(sampler=sampler), OneOf(samplers=(Uniform(size=5), sampler))):
        with pytest.raises(ComponentError, match=r"nothing is known of how tests\.toys:Together picks"):
            mechanism_of(strategy, part, "replace")
    assert mechanism_of(strategy, OneOf(samplers=(Uniform(size=5), Everyone())), "replace").sampling == "everyone"
    with pytest.raises(ComponentError, match="picks clients by their data or training"):
        mechanism_of(strategy, OneOf(samplers=(Uniform(size=5), BySize(size=5))), "replace")


def test_own_sampler_needs_declared_reads_for_a_guarantee() -> None:
    """Nothing is known of one that does not say how it picks: it might look at rows."""
    tree = {"kind": "dp_ftrl", "expected_cohort_size": 2.0}
    for strategy in (NOISY, tree):
        for name, said in [
            ("Silent", "nothing is known of how tests.toys:Silent picks"),
            ("Curious", "leaks their data"),
        ]:
            for sampler in (
                {"kind": f"tests.toys:{name}"},
                {"kind": "dropout", "sampler": {"kind": f"tests.toys:{name}"}},
            ):
                with pytest.raises(ScenarioError, match=said):
                    private(sampler=sampler, strategy=strategy)
    with pytest.raises(ScenarioError, match="leaks their data"):
        private(sampler={"kind": "tests.toys:Curious", "by": "atypical"})
    found = only(private(sampler={"kind": "tests.toys:Outspoken"}))
    assert (found.sampling, found.rate, found.count) == ("everyone", 1.0, 4)
    assert only(private(sampler={"kind": "tests.toys:Outspoken"}, strategy=tree)).sampling == "tree"
    # without noise nothing is promised, so anything goes
    assert not spending.of_scenario(private(sampler={"kind": "tests.toys:Silent"}, strategy={"kind": "fedavg"}))
