"""Tests of `fedmem/reporting/single_examples.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.estimation.randomisation import of_single_examples, permute_coins, two_sided
from fedmem.execution.run import run
from fedmem.reporting.cells import Value
from fedmem.reporting.sections import sections
from fedmem.reporting.single_examples import NOTE, rank_text
from fedmem.reporting.summary import Summary
from tests.banks import coins, make_audit
from tests.tiny import tiny

SINGLE = {"injections": [{"kind": "random_pattern", "clients": [0], "per_client": 1}], "sampler": {"kind": "everyone"}}


@pytest.mark.parametrize("runs", [1, 8])
def test_a_single_example_has_its_rank_and_p(tmp_path: Path, runs: int) -> None:
    """With one run p is that of the rank, and where the coin left the example out nothing is claimed."""
    changes = {"runs": runs, "estimators": [{"kind": "exposure"}]}
    finished = fedmem.read(run(tiny(**SINGLE, **changes), out=tmp_path))
    (section,) = [part for part in sections(Summary(finished)) if part.title == "SINGLE EXAMPLES"]
    rows = [row for _, block in section.blocks for row in block]
    frame = finished.measurements
    of_one = frame[(frame.scope == "summary") & (frame.subject == "0") & (frame.level == "global")]
    exposure = of_one[of_one.metric == "exposure"].value
    if not np.any(finished.audit.is_in.tolist()[0]):
        assert not rows
        return
    (row,) = rows
    assert row[0] == "random_pattern 0"
    assert "rank " in row[3]
    assert ", p " in row[3]
    assert section.notes == (NOTE,)
    if runs > 1:
        p = of_one[of_one.metric == "exposure.p"].value.item()
        kind = frame[(frame.scope == "summary") & (frame.subject == "random_pattern") & (frame.level == "global")]
        assert p == kind[kind.metric == "exposure.p"].value.item(), "the kind is this example"
    else:
        assert f"p {2 ** -exposure.item():.2g}" in row[3]


def test_p_of_single_examples_is_that_of_the_coins_of_each() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(8, 3, rng)
    audit = make_audit(["a"] * 3, [0] * 3, is_in)
    values = rng.normal(size=(8, 3)) + 5 * is_in * np.array([1.0, 0.0, 0.0])
    redeals = permute_coins(audit, 400, rng)
    p = of_single_examples(values, np.arange(3), redeals)
    assert p is not None
    for example in range(3):
        deals = redeals.coins[:, :, example]
        gaps = np.array([values[deal, example].mean() - values[~deal, example].mean() for deal in deals])
        assert p[example] == two_sided(gaps)
    assert p[0] < 0.05 < p[1]
    assert of_single_examples(np.zeros((8, 8)), np.arange(8), redeals) is None


def test_rank_of_one_run_is_exact_and_of_several_is_a_mean() -> None:
    for rank in range(1, 12):
        value = Value(value=math.log2(11 / rank), n=1, low=math.nan, high=math.nan)
        assert rank_text(value, 10) == f"rank {rank} of 11"
    assert "about" in rank_text(Value(value=1.0, n=2, low=math.nan, high=math.nan), 10)
