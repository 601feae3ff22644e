"""The long tail: its statistics on made numbers, and the whole experiment in small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.long_tail import analysis
from experiments.long_tail import run as study
from fedmem.execution.run import run
from fedmem.results.read import read_bank
from tests.experiments.study_helpers import small_study
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "long_tail"


def natural_rows(rng: np.random.Generator, seeds: int = 6, rows: int = 2000) -> pd.DataFrame:
    """Nothing is memorised and nothing useful, but in each half of the runs the noise of both measures is the same."""
    frames = []
    for seed in range(seeds):
        noise = rng.standard_normal((2, rows))
        values: dict[str, Any] = {"data": "digits", "level": "global", "seed": seed, "kind": "typical"}
        values |= {"memorisation": noise.mean(0), "memorisation_shuffled": rng.standard_normal(rows)}
        values |= {
            f"{name}_{half}": noise[i] for i, half in enumerate("ab") for name in ("memorisation", "cross_influence")
        }
        frames.append(pd.DataFrame(values))
    return pd.concat(frames)


def injected_rows(rng: np.random.Generator, seeds: int = 6, rows: int = 50) -> pd.DataFrame:
    """Mislabelled examples are memorised by .3 more than typical ones, and each costs two right answers."""
    frames = []
    for seed in range(seeds):
        for kind, memorised, useful in (("typical", 0.1, 0.5), ("mislabelled", 0.4, -2.0)):
            noise = rng.normal(0, 0.05, (2, rows))
            values: dict[str, Any] = {"data": "digits", "level": "global", "seed": seed, "kind": kind}
            frames.append(
                pd.DataFrame({**values, "memorisation": memorised + noise[0], "cross_influence": useful + noise[1]})
            )
    return pd.concat(frames)


def accuracies(rng: np.random.Generator, seeds: int = 6) -> pd.DataFrame:
    """Removal of the most memorised costs two points more than any other."""
    rows = []
    for seed in range(seeds):
        for arm, value in (
            ("nothing", 0.9),
            ("random", 0.89),
            ("local", 0.87),
            ("global", 0.87),
            ("same classes as local", 0.89),
            ("same classes as global", 0.89),
        ):
            for share in (0.0,) if arm == "nothing" else (0.1, 0.3):
                for _ in range(4):
                    place = {"data": "digits", "level": "global", "seed": seed, "arm": arm, "share": share}
                    rows.append({**place, "value": value + rng.normal(0, 0.001)})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(
        {
            "data": "digits",
            "level": "global",
            "seed": range(6),
            "subject": "typical",
            "metric": "cross_pairs_helped",
            "value": 2.0,
        }
    )
    made: pd.DataFrame = analysis.results(natural_rows(rng), injected_rows(rng), pairs, accuracies(rng))
    return made.set_index(["question", "what", "measure"])


def test_the_table_finds_what_was_put_in(table: pd.DataFrame) -> None:
    cells = dict(table.iterrows())
    for place, truth in (
        (("memorisation", "mislabelled", "less typical"), 0.3),
        (("influence", "mislabelled", "mean"), -2.0),
        (("influence", "typical", "cross_pairs_helped"), 2.0),
        (("removal", "nothing", "accuracy"), 90.0),
        (("removal", "10% random", "change"), -1.0),
        (("removal", "30% local", "less random"), -2.0),
        (("removal", "30% global", "less same classes as global"), -2.0),
    ):
        found = cells[place]
        assert found["mean"] == pytest.approx(truth, abs=0.15), place
        assert found["low"] <= found["mean"] <= found["high"]
        assert found["seeds"] == 6
    tested = table["holm"].dropna()
    assert (tested >= table.loc[tested.index, "p"]).all()


def test_noise_that_both_measures_share_is_no_usefulness(table: pd.DataFrame) -> None:
    gap = dict(table.iterrows())["influence", "natural", "most memorised tenth less rest"]
    assert gap["low"] < 0 < gap["high"]
    assert abs(gap["mean"]) < 0.2
    # Read in the runs that chose, the same rows would look useful.
    rows = natural_rows(np.random.default_rng(0))
    top = rows.groupby("seed")["memorisation_a"].rank(pct=True) > 0.9
    assert rows.loc[top.to_numpy(), "cross_influence_a"].mean() > 1.5


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = analysis.row("removal", ("digits", "local", "x"), "less random", pd.Series([2.0]), tested=True)
    assert found["mean"] == 2.0
    assert np.isnan([found["low"], found["high"], found["p"]]).all()


def test_arms_remove_the_highest_memorised_and_as_many_others() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=100)
    scores = {"local": rng.permutation(100.0 * np.arange(100)), "global": rng.permutation(np.arange(100.0))}
    natural = pd.concat(
        pd.DataFrame({"subject": np.arange(100), "level": level, "memorisation": score})
        for level, score in scores.items()
    ).set_index(["subject", "level"])
    found = list(study.arms(natural, labels, 2, rng))
    assert len(found) == 2 * (1 + 5 * len(study.SHARES))
    for arm, share, _, removed in found:
        assert len(removed) == len(set(removed.tolist())) == round(share * 100)
        if arm in scores:
            assert scores[arm][removed].min() == np.sort(scores[arm])[-len(removed)]
        if arm.startswith("same"):
            top = np.argsort(-scores[arm.rpartition(" ")[2]])[: len(removed)]
            np.testing.assert_array_equal(np.sort(labels[removed]), np.sort(labels[top]))


def test_a_part_of_the_runs_is_a_bank_of_its_own(tmp_path: Path) -> None:
    scenario = tiny(
        runs=8, sampler={"kind": "everyone"}, estimators=[{"kind": "memorisation"}, {"kind": "cross_influence"}]
    )
    folder = run(scenario, out=tmp_path)
    bank = read_bank(folder)
    whole = study.per_example(bank)
    stored = fedmem.read(folder).measurements
    stored = stored[(stored.scope == "summary") & stored["subject"].str.isdigit()]
    for metric in ("memorisation", "cross_influence"):
        for level, place in (("local", "owner"), ("global", "")):
            rows = stored[(stored.metric == metric) & (stored.level == level) & (stored.place == place)]
            rows = rows[rows.statistic == "probability"]
            expected = rows.set_index(rows.subject.astype(int))["value"].sort_index()
            np.testing.assert_array_equal(whole.xs(level, level="level")[metric].sort_index(), expected)

    chosen = np.array([1, 2, 4, 7])
    part = study.only(bank, chosen)
    ins = bank.audit.is_in[chosen]
    last = [e for e in bank.evidence if e.set == "audit" and e.level == "global" and e.round == scenario.rounds]
    probability = np.exp(-np.concatenate([e.loss for e in last]))[np.argsort(np.concatenate([e.run for e in last]))][
        chosen
    ]
    naive = [
        probability[ins[:, j], j].mean() - probability[~ins[:, j], j].mean() if 0 < ins[:, j].sum() < 4 else np.nan
        for j in range(len(bank.audit))
    ]
    found = study.per_example(part).xs("global", level="level")["memorisation"]
    np.testing.assert_allclose(found.reindex(range(len(naive))), naive, atol=1e-12)
    flipped = replace(bank, audit=replace(bank.audit, is_in=~bank.audit.is_in))
    np.testing.assert_allclose(study.per_example(flipped)["memorisation"], -whole["memorisation"], atol=1e-12)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_whole_experiment_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "DRAWS", 1)
    small = ["runs=4", "rounds=2", "client.epochs=1"]
    files = small_study(study.STUDY, tmp_path, small, chosen=lambda data, seed: data == "digits")
    assert set(files) == {"results.csv", "long_tail.png"}
    table = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(table["question"]) == {"memorisation", "influence", "removal"}
    assert set(table["level"]) == {"local", "global"}
    assert table["mean"].notna().all()


def test_committed_table_has_all_data_and_seeds() -> None:
    table = pd.read_csv(FOLDER / "results.csv")
    assert set(table["data"]) == {"digits", "fashion_mnist"}
    assert (table["seeds"] == 8).all()
