"""The experiment on selection: its claims on made values, what it reads, and its page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.selection import gates, run
from experiments.selection.analysis import ACCURACY, KINDS, LIRA, MEMORY, of_run, table
from fedmem.results.read import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "selection"


def made(seeds: int = 5, **arms: float) -> pd.DataFrame:
    """One value of each quantity and kind for each arm, at both levels, with noise over seeds."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for arm, value in arms.items():
            for what, kind in [*((what, kind) for what in (MEMORY, LIRA) for kind in KINDS), (ACCURACY, "")]:
                row: dict[str, Any] = {"what": what, "kind": kind, "arm": arm, "seed": seed}
                levels = ("global",) if what == ACCURACY else ("local", "global")
                rows += [{**row, "level": level, "value": value + rng.normal(0, 0.002)} for level in levels]
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, start: str) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.startswith(start)].verdict) if len(found) else set()


def test_claims_compare_arms_seed_by_seed() -> None:
    start = "left out by loss: memorisation of mislabelled"
    assert verdicts(made(loss=0.1, random=0.3), start) == {"holds"}
    assert verdicts(made(loss=0.3, random=0.1), start) == {"contradicted"}
    assert verdicts(made(loss=0.2, random=0.2), start) == {"not significant"}
    assert verdicts(made(seeds=1, loss=0.1, random=0.3), start) == {"undefined"}
    assert verdicts(made(loss=0.1), start) == set()
    assert verdicts(made(loss=0.3, random=0.1), "left out by loss: LiRA's AUC of typical") == {"holds"}


def test_a_loss_of_accuracy_is_allowed_up_to_its_limit() -> None:
    start = "left out by loss: test accuracy"
    assert verdicts(made(loss=0.90, random=0.91), start) == {"holds"}
    assert verdicts(made(loss=0.90, random=0.95), start) == {"contradicted"}


def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    small = ["runs=8", "rounds=2", "clients=8", "sampler={kind: wary, size: 4}"]
    scenario = fedmem.load_scenario(FOLDER / "scenario.yaml", small)
    run_folder = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(run_folder)
    assert len(found) == 2 * 3 * 2 + 1
    assert not found.duplicated(["what", "kind", "level"]).any()
    rows = run_folder.measurements
    expected = rows[
        (rows.scope == "summary")
        & (rows.metric == "memorisation")
        & (rows.subject == "isolated")
        & (rows.statistic == "probability")
        & (rows.place == "owner")
    ]
    value = found[(found.what == MEMORY) & (found.kind == "isolated") & (found.level == "local")].value
    assert value.tolist() == expected.value.tolist()


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made(loss=0.1)
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_arms_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.arm) == set(run.ARMS)
    for found in (committed, results):
        assert found.seeds.min() >= 5
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}
