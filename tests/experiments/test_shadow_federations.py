"""The experiment on shadow federations: what it reads, the signs of its claims, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.shadow_federations import run
from experiments.shadow_federations.analysis import BOUND, CONTROL, GAIN, GUESSING, IDENTIFIED, of_run, table
from experiments.shadow_federations.claims import CLAIMS
from fedmem.results.read import read
from fedmem.studies.claims import claim_table

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "shadow_federations"


def made(values: Mapping[tuple[str, str], float], seeds: int = 5) -> pd.DataFrame:
    """Each quantity of an arm at both levels, with noise over seeds."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"data": "digits", "arm": arm, "what": what, "level": level, "seed": seed, "value": value + noise}
        for (arm, what), value in values.items()
        for level in ("local", "global")
        for seed, noise in enumerate(rng.normal(0, 1e-3, seeds))
    )


def verdicts(values: pd.DataFrame, words: str) -> set[str]:
    found = claim_table(values, CLAIMS, ("data",))
    return set(found[found.claim == words].verdict)


SMALL, UNKNOWN = "known small batches", "unknown small batches"


@pytest.mark.parametrize(
    ("words", "true", "false"),
    [
        (
            "with known batches of 16, rows are identified",
            {(SMALL, IDENTIFIED): 0.4, (SMALL, GUESSING): 0.125},
            {(SMALL, IDENTIFIED): 0.1, (SMALL, GUESSING): 0.125},
        ),
        (
            "with unknown weights, the share is less than .1 above chance",
            {("unknown weights", IDENTIFIED): 0.2, ("unknown weights", GUESSING): 0.125},
            {("unknown weights", IDENTIFIED): 0.25, ("unknown weights", GUESSING): 0.125},
        ),
        (
            "known batches of 16 show more than unknown ones",
            {(SMALL, IDENTIFIED): 0.9, (UNKNOWN, IDENTIFIED): 0.2},
            {(SMALL, IDENTIFIED): 0.2, (UNKNOWN, IDENTIFIED): 0.9},
        ),
        (
            "epsilon 10 hides more than 1000",
            {("epsilon 10", IDENTIFIED): 0.1, ("epsilon 1000", IDENTIFIED): 0.9},
            {("epsilon 10", IDENTIFIED): 0.9, ("epsilon 1000", IDENTIFIED): 0.1},
        ),
        (
            "at epsilon 1, the share is below the bound",
            {("epsilon 1", IDENTIFIED): 0.15, ("epsilon 1", BOUND): 0.18},
            {("epsilon 1", IDENTIFIED): 0.2, ("epsilon 1", BOUND): 0.18},
        ),
    ],
)
def test_claims_have_the_right_sign(
    words: str, true: Mapping[tuple[str, str], float], false: Mapping[tuple[str, str], float]
) -> None:
    assert verdicts(made(true), words) == {"holds"}
    assert verdicts(made(false), words) == {"contradicted"}
    assert verdicts(made(true, seeds=1), words) == {"undefined"}


def test_claims_name_arms_of_the_study() -> None:
    named = {str(columns["arm"]) for claim in CLAIMS for columns in (claim.more, claim.less or claim.more)}
    assert named == set(run.ARMS)


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made({("known", IDENTIFIED): 0.5})
    assert table(values)["mean"].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


def test_intervals_of_shares_are_cut_and_those_of_gains_are_not() -> None:
    values = made({("known", IDENTIFIED): 0.999, ("known", GAIN): 0.999, ("epsilon 1", IDENTIFIED): 0.0})
    values["value"] += 0.2 * (values.seed == 3) * np.where(values.arm == "known", -1, 1)
    found = table(values).set_index(["arm", "what", "level"])
    assert found.high["known", IDENTIFIED, "local"] == 1
    assert found.high["known", GAIN, "local"] > 1
    assert found.low["epsilon 1", IDENTIFIED, "global"] == 0


@pytest.mark.slow
def test_values_are_those_of_the_last_round(tmp_path: Path) -> None:
    (scenario,) = run.scenarios("epsilon 10", 0, ["runs=16", "rounds=2"])
    folder = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(folder).set_index(["what", "level"]).value
    assert found.index.is_unique
    assert {what for what, _ in found.index} == {IDENTIFIED, GUESSING, BOUND, GAIN}
    assert {level for _, level in found.index} == {"local", "global", CONTROL}
    rows = folder.measurements
    for seen, level in (("owner", "local"), ("another", CONTROL), ("aggregate", "global")):
        asked = rows[(rows.metric == "shadow_identified") & (rows.seen == seen) & (rows["round"] == 2)]
        assert found[IDENTIFIED, level] == asked.value.item()


def test_committed_tables_have_all_arms_and_seeds() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.arm) == set(run.ARMS)
    assert 0 not in run.STUDY.seeds
    for found in (results, gates):
        assert found.seeds.min() == len(run.STUDY.seeds) >= 5
    assert set(gates.claim) == {claim.words for claim in CLAIMS}
