"""The experiment on values: its claims on made values, what it reads, and its page and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.proxies.analysis import KIND, WRONG
from experiments.value import gates, run
from experiments.value.analysis import LAST, MEMORY, RELIABILITY, RETRAINING, VALUE, of_examples, table
from fedmem.results.read import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "value"


def made(values: dict[tuple[str, str, str], float], seeds: int = 5) -> pd.DataFrame:
    """A value of each part, quantity and group at both levels, with noise over seeds."""
    rng = np.random.default_rng(0)
    rows = [
        {"part": part, "what": what, "of": of, "level": level, "seed": seed, "value": value + rng.normal(0, 0.001)}
        for seed in range(seeds)
        for (part, what, of), value in values.items()
        for level in ("local", "global")
    ]
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, start: str) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.startswith(start)].verdict) if len(found) else set()


def test_claims_compare_kinds_and_signs() -> None:
    useful, harmful = ("banzhaf", VALUE, KIND), ("banzhaf", VALUE, WRONG)
    assert verdicts(made({useful: 0.1, harmful: -0.1}), "wrong labels have a lower Banzhaf") == {"holds"}
    assert verdicts(made({useful: -0.1, harmful: 0.1}), "wrong labels have a lower Banzhaf") == {"contradicted"}
    assert verdicts(made({harmful: -0.1}), "wrong labels have a Banzhaf value below 0") == {"holds"}
    assert verdicts(made({harmful: 0.1}), "wrong labels have a Banzhaf value below 0") == {"contradicted"}
    memories = {("banzhaf", MEMORY, WRONG): 0.1, ("banzhaf", MEMORY, KIND): 0.2}
    assert verdicts(made(memories), "wrong labels are memorised more") == {"contradicted"}
    single = made({("clients", RETRAINING, "gtg"): 0.4}, seeds=1)
    assert verdicts(single, "GTG-Shapley ranks clients as") == {"undefined"}


def test_shares_of_seeds_have_no_interval() -> None:
    found = table(made({("clients", LAST, "gtg"): 1.0, ("clients", RETRAINING, "gtg"): 0.4})).set_index("what")
    assert found.low[LAST].isna().all()
    assert found.low[RETRAINING].notna().all()


def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    small = ["runs=8", "rounds=2", "observe={rounds: [2]}", "clients=4"]
    folder = fedmem.run(fedmem.load_scenario(FOLDER / "scenario.yaml", small), out=tmp_path)
    found = of_examples(folder, 0)
    rows = read(folder).measurements
    expected = rows[
        (rows.scope == "summary") & (rows.metric == "data_value") & (rows.statistic == "loss") & (rows.subject == WRONG)
    ]
    values = found[(found.what == VALUE) & (found["of"] == WRONG)].set_index("level")["value"]
    assert values.to_dict() == dict(zip(expected.level.astype(str), expected.value.astype(float), strict=True))
    assert set(found[found.what == RELIABILITY].level) == {"local", "global"}


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_parts_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.part) == set(run.PARTS)
    for found in (committed, results):
        assert found.seeds.min() >= 5
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}
