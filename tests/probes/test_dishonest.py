"""Tests of `fedmem/probes/_dishonest.py`: nothing is changed by what a dishonest server does in replays."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.probes._dishonest import find_isolated, quotients
from tests.engines.seams_helpers import same
from tests.probes.dishonest_helpers import BRIEF, measured, values
from tests.tiny import tiny

PROBES = ["imprint", "trap_weights", "gradient_ascent", "activation_membership"]


@pytest.mark.parametrize("kind", PROBES)
def test_training_is_the_same_with_and_without(kind: str) -> None:
    banks = []
    for probes in ([{"kind": kind}], []):
        scenario = tiny(**{**BRIEF, "rounds": 2, "runs": 2}, probes=probes)
        banks.append(simulate(scenario, build(scenario)))
    watched, quiet = banks
    assert watched.measurements
    assert same(watched.params, quiet.params)
    assert watched.bank.participation == quiet.bank.participation
    for one, other in zip(watched.bank.evidence, quiet.bank.evidence, strict=True):
        for part in fields(one):
            assert np.array_equal(np.asarray(getattr(one, part.name)), np.asarray(getattr(other, part.name)))


def test_every_reading_says_which_server_and_what_it_knows() -> None:
    rows = [row for row in measured({"kind": "imprint"}) if row.run is not None]
    assert {row.reading.labels.get("server") for row in rows} == {"dishonest", "honest"}
    assert {row.reading.labels.get("knows") for row in rows} == {"lr+steps+count+population"}
    assert {row.reading.labels.get("view") for row in rows} == {"message"}


def test_the_honest_server_reads_what_linear_layer_would() -> None:
    """The quotients of the real message do not depend on what the dishonest server sends."""
    honest = [values(measured({"kind": kind}), "exact_rows", server="honest") for kind in PROBES[:2]]
    assert honest[0] == honest[1]
    assert honest[0]


def test_rounds_are_the_first_and_the_last_or_those_given() -> None:
    changes: dict[str, Any] = {"rounds": 4, "runs": 2}
    assert {row.round for row in measured({"kind": "imprint"}, **changes)} == {1, 4, None}
    assert {row.round for row in measured({"kind": "imprint", "rounds": [2]}, **changes)} == {2, None}


def test_units_that_nobody_moved_give_no_quotient() -> None:
    gradient = np.array([[1.0, 0.5], [0.0, 0.0], [1e-12, 1e-12]])
    assert quotients(gradient, adjacent=False).tolist() == [[2.0]]
    assert find_isolated(np.zeros((2, 3), dtype=bool)).tolist() == [False, False]
