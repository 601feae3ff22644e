"""The experiment on influence: its claims on made values, its costs, and its page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.influence import costs, gates, run
from experiments.influence.analysis import APPROXIMATIONS, CONTROLS, PREDICTS, RANKS, table
from experiments.proxies.analysis import KIND

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "influence"


def made(seeds: int = 5, **scores: float) -> pd.DataFrame:
    """Scores of approximations on test margins, and their agreement, at both levels, with noise over seeds."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for level in ("local", "global"):
            for of, value in scores.items():
                row: dict[str, Any] = {"model": "mlp", "level": level, "of": of, "seed": seed}
                for question, targets in ((PREDICTS, "test"), (RANKS, KIND)):
                    rows.append({"question": question, "targets": targets, **row, "value": value + rng.normal(0, 0.01)})
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, start: str) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.startswith(start)].verdict) if len(found) else set()


def test_claims_compare_scores_seed_by_seed() -> None:
    start = "TRAK predicts test margins better"
    assert verdicts(made(trak=0.3, tracin=0.1), start) == {"holds"}
    assert verdicts(made(trak=0.1, tracin=0.3), start) == {"contradicted"}
    assert verdicts(made(trak=0.2, tracin=0.2), start) == {"not significant"}
    assert verdicts(made(seeds=1, trak=0.3, tracin=0.1), start) == {"undefined"}
    assert verdicts(made(trak=0.3), start) == set(), "without the other there is no claim"
    assert verdicts(made(tracin=-0.3), "TracIn predicts test margins of other runs") == {"contradicted"}
    assert verdicts(made(trak=0.9, grad_norm=0.8), "TRAK ranks ordinary examples") == {"holds"}


def test_networks_and_solvers_are_compared_with_each_other() -> None:
    dense = made(influence_function=0.3)

    def also(model: str, change: float) -> pd.DataFrame:
        moved = dense.value + change + np.random.default_rng(1).normal(0, 0.005, len(dense))
        return pd.concat([dense, dense.assign(model=model, value=moved)])

    assert verdicts(also("mlp, EK-FAC", 0.0), "EK-FAC predicts as well") == {"holds"}
    assert verdicts(also("mlp, EK-FAC", -0.2), "EK-FAC predicts as well") == {"contradicted"}
    assert verdicts(also("logistic", 0.2), "the influence function predicts better for logistic") == {"holds"}


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made(trak=0.3)
    assert len(table(values)) == 4
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


def test_costs_are_passes_of_all_examples_beside_a_training() -> None:
    (scenario,) = run.scenarios("logistic", 0, ["clients=2", "injections=[{kind: typical, per_client: 2}]"])
    found = costs.costs(scenario).set_index(["of", "level"])
    assert set(found.index.get_level_values("of")) == set(APPROXIMATIONS)
    # three passes of each of 4 examples, at the last round
    assert found.passes["grad_norm", "global"] == 12
    sizes = [float(found.passes[name, "global"]) for name in ("grad_norm", "tracin", "influence_function")]
    assert sizes == sorted(sizes)
    trained = found.passes / found.trainings
    assert trained.max() == pytest.approx(trained.min())
    # six rounds of five epochs of all rows, and three passes to each
    rows = trained.iloc[0] / (3 * 6 * 5)
    assert rows == pytest.approx(round(rows))


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_networks_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.model) == set(run.MODELS)
    for found in (committed, results):
        assert found.seeds.min() >= 5
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}


def test_memorisation_agrees_with_itself_alone() -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    itself = results[(results["of"] == CONTROLS[0]) & (results.targets == KIND) & results["mean"].notna()]
    assert len(itself)
    assert (itself["mean"] > 0.99).all()
    shuffled = results[results["of"] == CONTROLS[1]]
    assert len(shuffled)
    assert ((shuffled.low <= 0) & (shuffled.high >= 0)).mean() >= 0.8
