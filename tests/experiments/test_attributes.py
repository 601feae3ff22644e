"""The experiment on attribute inference: its claims on made values, what it reads, and its page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.attributes import gates, run
from experiments.attributes.analysis import AGREEMENT, BASELINES, GAIN, GUESSES, IN, KINDS, OUT, of_run, quantity, table
from fedmem.results.read import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "attributes"
WHATS = (*(quantity(guess, side) for guess in GUESSES for side in (IN, OUT, GAIN)), *BASELINES, AGREEMENT)


def made(seeds: int = 5, **whats: float) -> pd.DataFrame:
    """One value of each quantity in all arms, kinds and levels, with noise over seeds; 0.2 where none is given."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for what in WHATS:
            value = whats.get(what.replace(" ", "_"), 0.2)
            row: dict[str, Any] = {"what": what, "seed": seed}
            rows += [
                {**row, "arm": arm, "kind": kind, "level": level, "value": value + rng.normal(0, 0.002)}
                for arm in run.ARMS
                for kind in KINDS
                for level in ("local", "global")
            ]
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, words: str) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.contains(words, regex=False)].verdict)


def test_claims_are_differences_seed_by_seed() -> None:
    words = "imputation is right about typical rows more often than CSMIA"
    assert verdicts(made(imputed=0.5, csmia_in=0.3), words) == {"holds"}
    assert verdicts(made(imputed=0.3, csmia_in=0.5), words) == {"contradicted"}
    assert verdicts(made(), words) == {"not significant"}
    assert verdicts(made(seeds=1, imputed=0.5), words) == {"undefined"}


def test_a_gain_alone_is_a_claim() -> None:
    words = "race: CSMIA of random rows has a gain"
    assert verdicts(made(csmia_gain=0.1), words) == {"holds"}
    assert verdicts(made(csmia_gain=-0.1), words) == {"contradicted"}


def test_a_small_gain_is_allowed() -> None:
    words = "the gain of CSMIA of typical rows is at most .05"
    assert verdicts(made(csmia_gain=0.03), words) == {"holds"}
    assert verdicts(made(csmia_gain=0.08), words) == {"contradicted"}


@pytest.mark.slow
def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    data = "dataset={kind: synthetic, rows: 400, test: 100, shape: [6]}"
    small = ["runs=8", "rounds=1", "clients=4", "population=60", data, "observe={rounds: [1]}"]
    signals = "signals=[{kind: attribute_inference, column: 2, lomia: true}]"
    injections = "injections=[{kind: mislabelled, per_client: 3}, {kind: typical, per_client: 3}]"
    scenario = fedmem.load_scenario(
        FOLDER / "scenario.yaml", [*small, signals, injections, "estimators=[{kind: memorisation}]"]
    )
    folder = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(folder)
    assert not found.duplicated(["what", "kind", "level"]).any()
    assert {quantity("csmia", GAIN), quantity("lomia", OUT), "imputed"} <= set(found.what)
    rows = folder.measurements
    asked = rows[(rows.scope == "summary") & (rows.metric == "attribute_csmia") & (rows.subject == "typical")]
    for side, label in ((IN, ""), (OUT, "out")):
        expected = asked[(asked.place == "owner") & (asked.statistic.astype(str) == label)].value.tolist()
        value = found[
            (found.what == quantity("csmia", side)) & (found.kind == "typical") & (found.level == "local")
        ].value
        assert value.tolist() == expected


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made()
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_arms_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.arm) == set(run.ARMS)
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}
    assert min(committed.seeds.min(), results.seeds.min()) >= 5
