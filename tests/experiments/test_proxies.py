"""The experiment on proxies: its statistics on made values, and the whole of it in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.proxies import analysis, gates, run
from experiments.proxies.banks import DATA
from tests.experiments.study_helpers import small_study

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "proxies"


def two_halves(truth: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """(2, 5, m) values of both halves in five halvings, each with noise of its own."""
    return truth + rng.normal(0, noise, (2, 5, len(truth)))


def test_agreement_is_freed_of_noise_and_keeps_its_sign() -> None:
    rng = np.random.default_rng(0)
    memory = rng.standard_normal(400)
    proxy = -0.6 * memory + 0.8 * rng.standard_normal(400)
    found = analysis.agreement(two_halves(memory, 0.5, rng), two_halves(proxy, 0.5, rng), np.arange(400))
    truth = pd.Series(memory).corr(pd.Series(proxy), method="spearman")
    assert found["agreement"] == pytest.approx(truth, abs=0.03)
    assert abs(found["split"]) < abs(truth) - 0.05
    unrelated = analysis.agreement(two_halves(memory, 0.5, rng), rng.standard_normal((2, 5, 400)), np.arange(400))
    assert np.isnan(unrelated["agreement"])
    assert abs(unrelated["split"]) < 0.05


def test_too_few_examples_have_no_agreement() -> None:
    values = np.tile(np.linspace(0, 1, 30), (2, 3, 1))
    missing = values.copy()
    missing[0, 0, 5:20] = np.nan
    assert np.isnan(list(analysis.agreement(values, missing, np.arange(30)).values())).all()


def made(loss: float, cumulative: float, seeds: int = 5) -> pd.DataFrame:
    """Agreements of the final and of the cumulative loss at both levels, the latter by its two clocks."""
    rng, rows = np.random.default_rng(1), []
    for seed in range(seeds):
        for level in ("local", "global"):
            row: dict[str, Any] = {"data": "digits", "level": level, "seed": seed, "round": analysis.LAST}
            row |= {"question": "agreement", "statistic": "in"}
            rows.append({**row, "proxy": "loss", "value": loss + rng.normal(0, 0.01)})
            for clock in ("rounds", "participations"):
                name = f"cumulative_loss clock={clock}"
                rows.append({**row, "proxy": name, "value": cumulative + rng.normal(0, 0.01)})
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.startswith("cumulative loss ranks")].verdict)


def test_claims_compare_sizes_seed_by_seed() -> None:
    assert verdicts(made(0.5, -0.8)) == {"holds"}
    assert verdicts(made(0.8, 0.5)) == {"contradicted"}
    assert verdicts(made(0.8, -0.8)) == {"not significant"}
    assert verdicts(made(0.5, 0.8, seeds=1)) == {"undefined"}


def test_a_claim_needs_a_value_of_every_seed() -> None:
    values = made(0.5, 0.8)
    values.loc[(values.seed == 2) & (values.proxy == "loss"), "value"] = np.nan
    assert verdicts(values) == {"undefined"}


def test_table_has_the_mean_over_seeds_and_no_mean_of_some() -> None:
    values = made(0.5, 0.8)
    table = analysis.table(values)
    loss = table[(table.proxy == "loss") & (table.level == "local")].iloc[0]
    of_seeds = values[(values.proxy == "loss") & (values.level == "local")].value
    assert loss["mean"] == pytest.approx(of_seeds.mean())
    assert loss.low < loss["mean"] < loss.high
    assert loss.holm >= loss.p
    values.loc[values.seed == 2, "value"] = np.nan
    assert analysis.table(values)["mean"].isna().all()


@pytest.mark.slow
@pytest.mark.nightly
def test_the_whole_experiment_in_small(tmp_path: Path) -> None:
    small = [
        "runs=16",
        "rounds=2",
        "client.epochs=1",
        "injections=[{kind: typical, per_client: 8}, {kind: mislabelled}]",
    ]
    files = small_study(run.STUDY, tmp_path, small, chosen=lambda data, seed: data == "digits")
    assert set(files) == {"results.csv", "gates.csv", "proxies.png"}
    table = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(table.level) == {"local", "global"}
    assert {"el2n", "curvature", "noise", "cumulative_loss clock=participations"} <= set(table.proxy)


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_data_and_seeds(committed: pd.DataFrame) -> None:
    for table in (committed, pd.read_csv(FOLDER / "results.csv")):
        assert set(table["data"]) == set(DATA)
        assert table.seeds.min() >= 5
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}


def test_controls_are_what_they_must_be() -> None:
    table = pd.read_csv(FOLDER / "results.csv")
    split = table[table.question == "split"]
    noise = split[split.proxy.isin(["noise", "memorisation, coins shuffled"])]
    assert len(noise)
    assert (noise.holm > 0.05).all()
    # of texts in the aggregate, and of eight runs, memorisation has no reliable ranks
    itself = table[(table.question == "agreement") & (table.proxy == "memorisation") & table["mean"].notna()]
    assert set(itself["data"]) == {"digits", "fashion_mnist", "texts"}
    assert (itself["mean"] > 0.99).all()
