"""The experiment on over-fitting: the round of the lowest loss, the signs of its claims, and its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.overfitting import run
from experiments.overfitting.analysis import GAP, LAST, LOSS, LOWEST, MEMORY, ROUND, of_run, table
from experiments.overfitting.claims import CLAIMS, EARLY
from fedmem.results.read import read
from fedmem.studies.claims import claim_table

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "overfitting"


def made(what: str, kind: str, at: str, value: float, arm: str = "plain") -> pd.DataFrame:
    """A value at both levels, with noise over seeds."""
    rng = np.random.default_rng(int(1000 * abs(value)))
    keys = {"data": "digits", "arm": arm, "what": what, "kind": kind, "at": at}
    return pd.DataFrame(
        {**keys, "level": level, "seed": seed, "value": value + noise}
        for seed in range(5)
        for level in ("local", "global")
        for noise in rng.normal(0, 0.002, 1)
    )


def verdicts(words: str, *parts: pd.DataFrame) -> set[str]:
    found = claim_table(pd.concat(parts), CLAIMS, ("data",))
    return set(found[found.claim.str.contains(words)].verdict)


def test_claims_have_the_right_sign() -> None:
    wrong, gap = made(MEMORY, "mislabelled", LOWEST, 0.3), made(GAP, "", LOWEST, 0.1)
    assert verdicts("wrong labels are memorised where", wrong) == {"holds"}
    assert verdicts("wrong labels are memorised more than", wrong, gap) == {"holds"}
    assert verdicts("wrong labels are memorised more than", wrong, made(GAP, "", LOWEST, 0.5)) == {"contradicted"}
    early, lowest = made(LOSS, "", EARLY, 0.8), made(LOSS, "", LOWEST, 0.6)
    assert verdicts("still falls", early, lowest) == {"holds"}
    assert verdicts("still falls", made(LOSS, "", EARLY, 0.4), lowest) == {"contradicted"}
    gaps = made(GAP, "", LAST, 0.2), made(GAP, "", LAST, 0.1, "weight decay")
    assert verdicts("weight decay lowers", *gaps) == {"holds"}


@pytest.mark.slow
def test_the_lowest_loss_is_that_of_the_mean_over_models(tmp_path: Path) -> None:
    small = ["runs=4", "rounds=3", "observe={every: 1}", "client.epochs=1"]
    (scenario,) = run.scenarios("digits", "plain", 0, small)
    measured = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(measured)
    assert not found.duplicated(["what", "kind", "level", "at"]).any()
    rows = measured.measurements
    tests = rows[(rows.scope == "run") & (rows.metric == "test_loss") & (rows["round"] > 0)]
    for level in ("local", "global"):
        means = tests[tests.level == level].groupby("round")["value"].mean()
        chosen = found[(found.level == level) & (found.what == ROUND)].value.item()
        assert chosen == means.idxmin()
        lowest = found[(found.level == level) & (found.what == LOSS) & (found["at"] == LOWEST)].value.item()
        assert lowest == pytest.approx(means.min())
        memory = found[(found.level == level) & (found.what == MEMORY) & (found.kind == "mislabelled")]
        at = memory.set_index("at")["value"]
        assert at[LOWEST] == at[str(int(chosen))]
        assert at[LAST] == at["3"]


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made(MEMORY, "typical", LAST, 0.1)
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


def test_committed_tables_have_all_claims_and_seeds() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.data) == set(run.DATA)
    assert set(results.arm) == set(run.ARMS)
    for found in (results, gates):
        assert found.seeds.min() == len(run.STUDY.seeds) >= 5
    assert set(gates.claim) == {claim.words for claim in CLAIMS}
    assert 0 not in run.STUDY.seeds
