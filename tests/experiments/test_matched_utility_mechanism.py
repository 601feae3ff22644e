"""Which updates survive each strategy: the names of strategies, the ratio, and the signs of the claims."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.matched_utility import mechanism
from experiments.matched_utility.mechanism import ATYPICAL, CLAIMS, NORM, RATIO, RULES, TASKS, UNEXPLAINED
from fedmem.results.read import read
from fedmem.studies.claims import claim_table

FOLDER = Path(mechanism.__file__).parent


def made(what: str, strategy: str, value: float) -> pd.DataFrame:
    """A value of five seeds, with noise."""
    noise = np.random.default_rng(int(1000 * abs(value))).normal(0, 0.002, 5)
    keys = {"data": "digits", "level": "global", "strategy": strategy, "what": what}
    return pd.DataFrame({**keys, "seed": seed, "value": value + noise[seed]} for seed in range(5))


def verdict(words: str, *parts: pd.DataFrame) -> str:
    found = claim_table(pd.concat(parts), CLAIMS, ("data",))
    (only,) = found[found.claim.str.contains(words)].verdict
    return str(only)


def test_names_of_strategies_are_unique() -> None:
    assert len(RULES) == 12
    assert {claim.more["strategy"] for claim in CLAIMS} <= set(RULES)


def test_claims_have_the_right_sign() -> None:
    for value, expected in ((0.5, "holds"), (1.5, "contradicted")):
        assert verdict("median suppresses atypical", made(RATIO, "fedmedian", value)) == expected
    for value, expected in ((-0.5, "holds"), (0.5, "contradicted")):
        assert verdict("norm clipping suppresses long", made(NORM, "norm_clipping", value)) == expected


def rows_of(**values: Any) -> Any:
    """The summary of a run, as far as it is read."""
    rest = values.pop("rest", 0.8)
    keys = [("survival", "atypical third", 0.4), ("survival", "rest", rest)]
    keys += [("survival_correlation", "norm", -0.3), ("survival_correlation", "atypicality", 0.1)]
    keys += [("unexplained_share", "", 0.2)]
    shared = {"scope": "summary", "level": "global", "subject": ""}
    rows = [{**shared, "metric": metric, "statistic": statistic, "value": v} for metric, statistic, v in keys]
    rows.append({**rows[0], "subject": "client 3", "value": 9.0})
    rows.append({**rows[0], "scope": "round", "value": 9.0})
    return SimpleNamespace(measurements=pd.DataFrame(rows))


def test_ratio_divides_the_means() -> None:
    found = mechanism.of_run(rows_of()).set_index("what").value
    assert found.to_dict() == pytest.approx({NORM: -0.3, ATYPICAL: 0.1, RATIO: 0.5, UNEXPLAINED: 0.2})
    assert np.isnan(mechanism.of_run(rows_of(rest=0.0)).set_index("what").value[RATIO])


@pytest.mark.slow
def test_equal_weights_have_ratio_one_and_no_correlation(tmp_path: Path) -> None:
    small = ["runs=2", "rounds=2", "dataset.test=50", "population=20"]
    (scenario,) = mechanism.scenarios(TASKS[0], "fedavg, uniform", 0, small)
    found = mechanism.of_run(read(fedmem.run(scenario, out=tmp_path))).set_index("what").value
    assert found[RATIO] == 1
    assert found[UNEXPLAINED] == pytest.approx(0, abs=1e-6)
    assert found[[NORM, ATYPICAL]].isna().all()


def test_committed_tables_have_all_claims_and_seeds() -> None:
    table, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("mechanism", "mechanism_gates"))
    assert set(table.strategy) == set(RULES)
    for found in (table, gates):
        assert set(found.data) == set(TASKS)
        assert found.seeds.min() == len(mechanism.STUDY.seeds) >= 5
    assert set(gates.claim) == {claim.words for claim in CLAIMS}
    assert 0 not in mechanism.STUDY.seeds
