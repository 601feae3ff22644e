"""The experiment on dishonest servers: its claims on made values, what it reads, its page and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.dishonest_server import gates, run
from experiments.dishonest_server.analysis import (
    ACTIVATION,
    ASCENT,
    EXPECTED,
    HONEST,
    IDENTIFIED,
    IMPRINT,
    IN_OUT,
    LEVELS,
    OUT,
    PASSIVE,
    TRAP,
    of_run,
    table,
)
from fedmem.results.read import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "dishonest_server"


def made(values: Mapping[tuple[str, str], float], seeds: int = 5) -> pd.DataFrame:
    """Each quantity of an arm at message and sum, with noise over seeds."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "data": "digits",
            "arm": arm,
            "what": what,
            "seen": seen,
            "level": level,
            "seed": seed,
            "value": value + rng.normal(0, 1e-4),
        }
        for seed in range(seeds)
        for (arm, what), value in values.items()
        for seen, level in LEVELS.items()
    ]
    return pd.DataFrame(rows).assign(data="digits")


def verdicts(values: Mapping[tuple[str, str], float], words: str, seeds: int = 5) -> set[str]:
    found = gates.gates(made(values, seeds))
    chosen = found[found.claim == words]
    assert len(chosen)
    return set(chosen.verdict)


ONE = "one step"


@pytest.mark.parametrize(
    ("words", "true", "false"),
    [
        ("imprint reads rows: in − out", {(ONE, IMPRINT + IN_OUT): 0.6}, {(ONE, IMPRINT + IN_OUT): -0.6}),
        (
            "imprint differs from its formula by less than .05",
            {(ONE, IMPRINT): 0.7, (ONE, IMPRINT + EXPECTED): 0.68},
            {(ONE, IMPRINT): 0.7, (ONE, IMPRINT + EXPECTED): 0.8},
        ),
        (
            "trap weights read more than the real message",
            {(ONE, TRAP): 0.3, (ONE, HONEST): 0.1},
            {(ONE, TRAP): 0.1, (ONE, HONEST): 0.3},
        ),
        (
            "imprint reads less after five steps of 16 rows",
            {(ONE, IMPRINT): 0.7, ("five small steps", IMPRINT): 0.3},
            {(ONE, IMPRINT): 0.3, ("five small steps", IMPRINT): 0.7},
        ),
        ("noise leaves less than .01 of rows exact", {("noise", IMPRINT): 0.0}, {("noise", IMPRINT): 0.1}),
        (
            "with noise, one unit reveals less than .05 of members",
            {("noise", ACTIVATION): 0.0},
            {("noise", ACTIVATION): 0.5},
        ),
        ("the fall of the loss reveals members", {(ONE, PASSIVE): 0.6}, {(ONE, PASSIVE): 0.4}),
        (
            "ascent reveals more than the fall of the loss",
            {(ONE, ASCENT): 0.7, (ONE, PASSIVE): 0.6},
            {(ONE, ASCENT): 0.5, (ONE, PASSIVE): 0.6},
        ),
    ],
)
def test_signs_of_claims_are_right(
    words: str, true: Mapping[tuple[str, str], float], false: Mapping[tuple[str, str], float]
) -> None:
    assert verdicts(true, words) == {"holds"}
    assert verdicts(false, words) == {"contradicted"}
    assert verdicts(true, words, seeds=1) == {"undefined"}


def test_claims_without_values_are_undefined() -> None:
    assert verdicts({(ONE, HONEST): 0.1}, "imprint reads less after twenty steps of 16 rows") == {"undefined"}


@pytest.mark.slow
def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    (scenario,) = run.scenarios("digits", ONE, 0, ["runs=2", "bootstrap=40"])
    folder = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(folder)
    assert not found.duplicated(["what", "seen"]).any()
    assert {IMPRINT, TRAP, HONEST, IMPRINT + EXPECTED, TRAP + EXPECTED, ACTIVATION, ASCENT, PASSIVE} <= set(found.what)
    assert {IMPRINT + IN_OUT, IMPRINT + OUT, IMPRINT + IDENTIFIED, HONEST + IDENTIFIED} <= set(found.what)
    rows = folder.measurements
    is_asked = (
        (rows.scope == "summary") & (rows.metric == "exact_rows") & (rows.source == "imprint") & (rows.clients == 4)
    )
    value = found[(found.what == IMPRINT) & (found.seen == "sum of 4")].value
    assert value.tolist() == rows[is_asked & (rows.server == "dishonest")].value.tolist()


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made({(ONE, IMPRINT): 0.1})
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_arms_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.arm) == set(run.ARMS)
    assert set(results.data) == set(run.DATA)
    assert results.seeds.min() >= 5
    assert 0 not in run.STUDY.seeds
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}
