"""The experiment on adapted models: its claims on made values, its curves, its controls, its page and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.adaptation import gates, run
from experiments.adaptation.analysis import (
    ACCURACY,
    AUC,
    MEMORISATION,
    PSNR,
    READ,
    READ_OUT,
    STARTS,
    curve,
    of_run,
    share_interval,
    table,
)
from fedmem.results.read import read
from fedmem.studies.experiment import verdict_after_holm

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "adaptation"
STOPS = (4, 8, 16)


def made(slopes: Mapping[str, float], delays: Mapping[str, float] | None = None, seeds: int = 5) -> pd.DataFrame:
    """Arms that gain accuracy from stop to stop, and of each quantity `slope` times the accuracy.

    An arm with a delay is less accurate at every stop by so much.
    """
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for arm, slope in slopes.items():
            for part in ("memory", "updates"):
                for stop, reached in zip(STOPS, (0.4, 0.65, 0.9), strict=True):
                    accuracy = reached - (delays or {}).get(arm, 0.0) + rng.normal(0, 1e-3)
                    key = {"part": part, "arm": arm, "seed": seed, "round": stop}
                    rows.append({**key, "what": ACCURACY, "level": "global", "value": accuracy})
                    for what in [name for name, place in gates.MEASURES.items() if place == part]:
                        for level in ("local", "global"):
                            value = slope * accuracy + rng.normal(0, 1e-4)
                            rows.append({**key, "what": what, "level": level, "value": value})
    return pd.DataFrame(rows)


def claims(values: pd.DataFrame, words: str) -> pd.DataFrame:
    found = gates.gates(values)
    chosen = found[found.claim == words]
    assert len(chosen)
    return chosen


@pytest.mark.parametrize("measure", gates.MEASURES)
def test_signs_of_claims_are_right(measure: str) -> None:
    words = f"tanh {gates.LOWERS[measure]}"
    assert set(claims(made({"reference": 0.5, "tanh": 0.3}), words).verdict) == {"holds"}
    assert set(claims(made({"reference": 0.3, "tanh": 0.5}), words).verdict) == {"contradicted"}
    assert set(claims(made({"reference": 0.5, "tanh": 0.3}, seeds=1), words).verdict) == {"undefined"}


def test_less_learnt_is_not_less_memorised() -> None:
    values = made({"reference": 0.5, "tanh": 0.5}, {"tanh": 0.08})
    at_end = values[(values["round"] == 16) & (values.what == MEMORISATION)].groupby("arm").value.mean()
    assert at_end["reference"] - at_end["tanh"] > 0.03
    found = claims(values, "tanh lowers memorisation")
    assert found["mean"].abs().max() < 1e-3
    assert (found.seeds == 5).all()


def test_arms_are_compared_where_the_slowest_ends() -> None:
    values = made({"reference": 0.5, "tanh": 0.5, "narrow": 0.5}, {"tanh": 0.2, "narrow": 0.1})
    assert gates.same_accuracy(values, "memory") == pytest.approx(0.7, abs=2e-3)
    assert set(claims(values, "tanh lowers memorisation").accuracy) == {gates.same_accuracy(values, "memory")}


def test_an_arm_that_does_not_learn_has_no_answer() -> None:
    values = made({"reference": 0.5, "tanh": 0.5}, {"tanh": 0.6})
    found = claims(values, "tanh lowers memorisation")
    assert set(found.verdict) == {"undefined"}
    assert found.reason.str.contains("does not reach").all()


def test_missing_arms_are_undefined() -> None:
    assert set(claims(made({"reference": 0.5}), "narrow lowers the AUC of LiRA").verdict) == {"undefined"}


def test_cost_of_accuracy_has_the_right_sign() -> None:
    words = "tanh costs less than .02 of accuracy, memory"
    assert set(claims(made({"reference": 0.5, "tanh": 0.5}), words).verdict) == {"holds"}
    assert set(claims(made({"reference": 0.5, "tanh": 0.5}, {"tanh": 0.08}), words).verdict) == {"contradicted"}


def test_verdicts_need_significance_after_holm() -> None:
    assert verdict_after_holm(0.1, 0.3, 0.06) == "not significant"
    assert verdict_after_holm(0.1, 0.3, 0.04) == "holds"
    assert verdict_after_holm(-0.3, -0.1, 0.04) == "contradicted"
    found = gates.gates(made(dict.fromkeys(run.ARMS, 0.5)))
    tested = found[found.family == MEMORISATION]
    assert (tested.tests == 3).all()
    assert (tested.holm >= tested.p).all()


def test_membership_is_compared_with_one_half() -> None:
    values = made({"reference": 0.5})
    assert claims(values, f"reference, {AUC} above ½")["mean"].max() < 0


def test_inversion_that_finds_nothing_has_an_interval() -> None:
    zero = np.zeros(5)
    found = share_interval(zero, zero, 4)
    assert found["mean"] == 0
    assert found["high"] == pytest.approx(0.161, abs=1e-3)
    assert found["low"] == -found["high"]
    # equal shares above 0 have no spread, and are no certainty
    assert np.isnan(share_interval(zero, np.full(5, 0.2), 4)["low"])
    assert share_interval(np.array([0.0, 0.1, 0.2]), np.zeros(3), 4)["low"] < 0


def test_a_curve_has_each_seed_and_stop() -> None:
    values = made({"reference": 0.5, "tanh": 0.3})
    found = curve(values, "memory", "tanh", MEMORISATION, "local")
    assert found.utility.shape == found.quantity.shape == (5, 3)
    np.testing.assert_allclose(found.quantity, 0.3 * found.utility, atol=1e-3)
    lost = values[~((values.seed == 2) & (values.what == MEMORISATION))]
    assert curve(lost, "memory", "tanh", MEMORISATION, "local").is_complete.tolist() == [True, True, False, True, True]


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made({"reference": 0.5})
    values.loc[(values.seed == 2) & (values.what == MEMORISATION), "value"] = np.nan
    assert table(values).query("what == @MEMORISATION")["mean"].isna().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "arm", "settings", "whats"),
    [
        ("memory", "narrow", ["runs=8", "rounds=2", "observe.rounds=[1, 2]"], {MEMORISATION, AUC}),
        (
            "updates",
            "tanh",
            ["runs=2", "rounds=2", "observe.rounds=[2]", "probes.1.rounds=[2]", "probes.1.attack.steps=2"],
            {PSNR, READ, READ_OUT},
        ),
        (
            "classes",
            "logistic",
            ["runs=2", "rounds=2", "observe.rounds=[2]", *(f"probes.{n}.attack.steps=2" for n in (1, 2, 3))],
            {f"{what}, {start}" for what in (PSNR, READ, READ_OUT) for start in STARTS.values()},
        ),
    ],
)
def test_values_of_a_run_are_those_of_its_rounds(
    part: str, arm: str, settings: list[str], whats: set[str], tmp_path: Path
) -> None:
    (scenario,) = run.scenarios(part, arm, 0, settings)
    folder = read(fedmem.run(scenario, out=tmp_path))
    found = of_run(folder, part)
    assert not found.duplicated(["what", "level", "round"]).any()
    assert set(found.what) == {ACCURACY, *whats}
    assert {"local", "global"} == set(found[found.what.isin(whats)].level)
    rows = folder.measurements
    measured = rows[(rows.scope == "round") & (rows.metric == "test_accuracy") & (rows.level == "global")]
    assert found[found.what == ACCURACY].value.tolist() == measured.value.tolist()


def test_number_of_runs_is_that_of_the_scenario() -> None:
    (scenario,) = run.scenarios("classes", "reference", 0, [])
    assert scenario.runs == gates.RUNS


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_arms_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    for part, arms in run.ARMS_OF.items():
        assert set(results[results.part == part].arm) == set(arms)
    assert results.seeds.min() >= 5
    assert 0 not in run.STUDY.seeds
    matched = committed[committed.family.isin(gates.MEASURES)]
    assert set(matched.arm) == set(gates.ADAPTED) == set(run.ARMS) - {"reference"}
    assert len(matched) == 24
