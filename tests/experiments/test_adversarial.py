"""The experiment on adversarial and poisoned examples: what it reads, the signs of its claims, and its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.adversarial import run
from experiments.adversarial.analysis import KINDS, LIRA, MEMORY, OTHERS, of_run, table
from experiments.adversarial.claims import CLAIMS
from fedmem.results.read import read
from fedmem.studies.claims import claim_table

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "adversarial"


def made(what: str, **kinds: float) -> pd.DataFrame:
    """One quantity of each kind at both levels, with noise over seeds."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"data": "digits", "what": what, "kind": kind, "level": level, "seed": seed, "value": value + noise}
        for seed in range(5)
        for kind, value in kinds.items()
        for level in ("local", "global")
        for noise in rng.normal(0, 0.002, 1)
    )


@pytest.mark.parametrize(
    ("what", "holding", "failing", "words"),
    [
        (MEMORY, (0.5, 0.1), (0.1, 0.5), "memorised more"),
        (LIRA, (0.9, 0.6), (0.6, 0.9), "found by LiRA"),
        (OTHERS, (-2.0, 1.0), (2.0, 1.0), "lowers right"),
        (OTHERS, (1.0, 2.0), (2.0, 1.0), "fewer right"),
    ],
)
def test_claims_have_the_right_sign(
    what: str, holding: tuple[float, float], failing: tuple[float, float], words: str
) -> None:
    for (kind, typical), verdict in ((holding, "holds"), (failing, "contradicted")):
        found = claim_table(made(what, adversarial=kind, poison=kind, typical=typical), CLAIMS, ("data",))
        asked = found[found.claim.str.contains(words)]
        assert set(asked.verdict) == {verdict}
        assert len(asked) == 4


@pytest.mark.slow
def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    (scenario,) = run.scenarios("digits", 0, ["runs=8", "rounds=1", "observe={every: 1}"])
    measured = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(measured)
    assert not found.duplicated(["what", "kind", "level"]).any()
    assert set(found.kind) == set(KINDS)
    assert set(found.what) == {MEMORY, OTHERS, LIRA}
    rows = measured.measurements
    expected = rows[
        (rows.scope == "summary")
        & (rows.metric == "cross_influence")
        & (rows.subject == "poison")
        & (rows.statistic == "probability")
        & (rows.level == "global")
    ]
    is_asked = (found.what == OTHERS) & (found.kind == "poison") & (found.level == "global")
    assert found[is_asked].value.tolist() == expected.value.tolist()


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made(MEMORY, typical=0.1)
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


def test_committed_tables_have_all_claims_and_seeds() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.data) == set(run.DATA)
    for found in (results, gates):
        assert found.seeds.min() == len(run.STUDY.seeds) >= 5
    assert set(gates.claim) == {claim.words for claim in CLAIMS}
    assert 0 not in run.STUDY.seeds
