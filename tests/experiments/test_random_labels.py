"""The experiment on random labels: right answers in and out, the signs of its claims, and its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.random_labels import run
from experiments.random_labels.analysis import FITTED, GUESSED, MEMORY, of_folder, table
from experiments.random_labels.claims import CLAIMS, LAST
from fedmem.studies.claims import claim_table

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "random_labels"


def made(what: str, arm: str, value: float, kind: str = "random_label", at: int = LAST) -> pd.DataFrame:
    """A value at both levels, half as large in the aggregate, with noise over seeds."""
    rng = np.random.default_rng(int(1000 * value))
    keys = {"data": "digits", "arm": arm, "what": what, "kind": kind, "round": at}
    return pd.DataFrame(
        {**keys, "level": level, "seed": seed, "value": value * share + noise}
        for seed in range(5)
        for level, share in (("local", 1.0), ("global", 0.5))
        for noise in rng.normal(0, 0.002, 1)
    )


def verdicts(words: str, *parts: pd.DataFrame) -> list[str]:
    found = claim_table(pd.concat(parts), CLAIMS, ("data",))
    return found[found.claim.str.startswith(words)].verdict.tolist()


def test_claims_have_the_right_sign() -> None:
    two, everyone = made(MEMORY, "two clients, 64 units", 0.5), made(MEMORY, "all clients, 64 units", 0.7)
    assert verdicts("random labels at two clients are memorised", two) == ["holds", "holds", "holds"]
    assert verdicts("random labels are memorised more where all", two, everyone) == ["holds", "holds"]
    small, large = made(MEMORY, "two clients, 8 units", 0.1), made(MEMORY, "two clients, 256 units", 0.6)
    assert verdicts("random labels at two clients: 256", small, large) == ["holds", "holds"]
    fitted = made(FITTED, "two clients, 64 units", 0.8)
    assert verdicts("most random labels", fitted) == ["holds", "contradicted"]
    first = made(FITTED, "two clients, 64 units", 0.9, "true_label", 1)
    assert verdicts("true labels are fitted", first, made(FITTED, "two clients, 64 units", 0.3, at=1)) == ["holds"] * 2


@pytest.mark.slow
def test_memorisation_is_right_in_less_right_out(tmp_path: Path) -> None:
    small = ["runs=8", "rounds=2", "observe={every: 1}", "client.epochs=2"]
    (scenario,) = run.scenarios("digits", "two clients, 8 units", 0, small)
    folder = fedmem.run(scenario, out=tmp_path)
    found = of_folder(folder)
    assert not found.duplicated(["what", "kind", "level", "round"]).any()
    by_accuracy = fedmem.read(folder).measurements
    is_asked = (by_accuracy.metric == "memorisation") & (by_accuracy.scope == "round") & (by_accuracy["round"] == 2)
    rows = by_accuracy[is_asked & (by_accuracy.statistic.astype(str) == "") & (by_accuracy.subject == "random_label")]
    for level in ("local", "global"):
        values = found[(found.level == level) & (found.kind == "random_label") & (found["round"] == 2)]
        right = values.set_index("what")["value"]
        expected = rows[(rows.level == level) & (rows.place != "others")].value.item()
        assert right[FITTED] - right[GUESSED] == pytest.approx(expected)


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made(MEMORY, "all clients, 8 units", 0.1)
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
