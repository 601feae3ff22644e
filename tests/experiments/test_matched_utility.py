"""The experiment at matched utility: its claims on made values, its search, its page and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.matched_utility import analysis, arms, choose, run
from experiments.matched_utility.analysis import ACCURACY, QUANTITIES, SHARES, Place, accuracy_of, gates
from fedmem.errors import RunError
from tests.experiments.study_helpers import small_study

ROUNDS = (4, 8, 16)
SMALL = ["runs=8", "rounds=2", "observe={rounds: [1, 2]}", "estimators=[]"]


@pytest.fixture(autouse=True)
def _fixed_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "accuracy_of", lambda task, share: {0.9: 0.6, 0.97: 0.75}[share])


def made(
    slopes: Mapping[tuple[str, str], float], delays: Mapping[str, float] | None = None, seeds: int = 5
) -> pd.DataFrame:
    """Arms (strategy, sampler) whose accuracy rises, and of each quantity `slope` times the accuracy.

    A strategy with a delay is less accurate after every round by so much.
    """
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for (strategy, sampler), slope in slopes.items():
            for number, reached in zip(ROUNDS, (0.4, 0.65, 0.9), strict=True):
                accuracy = reached - (delays or {}).get(strategy, 0.0) + rng.normal(0, 1e-3)
                key = {"task": "digits", "strategy": strategy, "sampler": sampler, "seed": seed, "round": number}
                rows.append({**key, "what": ACCURACY, "level": "global", "value": accuracy})
                for what in QUANTITIES:
                    for level in ("local", "global"):
                        rows.append(
                            {**key, "what": what, "level": level, "value": slope * accuracy + rng.normal(0, 1e-4)}
                        )
    return pd.DataFrame(rows)


def grid(**slopes: float) -> dict[tuple[str, str], float]:
    return {(strategy, sampler): slope for strategy, slope in slopes.items() for sampler in ("uniform", "by_size")}


def of(values: pd.DataFrame, arm: str, share: float = 0.9) -> pd.DataFrame:
    found = gates(values)
    found = found[(found.arm == arm) & (found.share == share)]
    assert len(found) == 2 * len(QUANTITIES)
    return found


def test_signs_of_claims_are_right() -> None:
    assert set(of(made(grid(fedavg=0.5, krum=0.3)), "krum").verdict) == {"holds"}
    assert set(of(made(grid(fedavg=0.3, krum=0.5)), "krum").verdict) == {"contradicted"}
    assert set(of(made(grid(fedavg=0.3, krum=0.5), seeds=1), "krum").verdict) == {"undefined"}


def test_less_learnt_is_not_less_memorised() -> None:
    found = of(made(grid(fedavg=0.5, krum=0.5), {"krum": 0.1}), "krum")
    assert found["mean"].abs().max() < 2e-3
    assert set(found.pairs) == {2}


def test_accuracy_that_is_not_reached_has_a_reason_and_no_value() -> None:
    values = made(grid(fedavg=0.5, krum=0.5), {"krum": 0.2})
    assert of(values, "krum", 0.97)["mean"].isna().all()
    assert (of(values, "krum", 0.97).reason != "").all()
    assert (of(values, "krum", 0.97).pairs == 0).all()
    assert of(values, "krum", 0.9)["mean"].notna().all()


def test_a_sampler_is_compared_with_uniform_within_strategies() -> None:
    slopes = {
        ("fedavg", "uniform"): 0.5,
        ("krum", "uniform"): 0.9,
        ("fedavg", "by_size"): 0.4,
        ("krum", "by_size"): 0.8,
    }
    found = of(made(slopes), "by_size")
    assert set(found.family) == {"sampler"}
    assert found["mean"].to_numpy() == pytest.approx(0.1 * 0.6, abs=2e-3)
    assert set(of(made(slopes), "krum").family) == {"strategy"}
    assert of(made(slopes), "krum")["mean"].to_numpy() == pytest.approx(-0.4 * 0.6, abs=2e-3)


def test_holm_counts_all_claims_about_a_quantity_at_a_share() -> None:
    found = gates(made(grid(fedavg=0.5, krum=0.49, fedexp=0.51)))
    for _, family in found.groupby(["what", "share"]):
        assert len(family) == 6, "two strategies and a sampler at two levels"
        assert family.holm.min() == pytest.approx(min(1.0, 6 * family.p.min()))


def test_no_arm_lowers_by_chance_in_more_than_one_of_20() -> None:
    """Curves that differ by noise of seeds alone, in accuracy and quantity."""
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(200):
        values = made(grid(fedavg=0.5, krum=0.5))
        values = values.assign(value=values.value + rng.normal(0, 0.01, len(values)))
        found = gates(values)
        found = found[(found.what == QUANTITIES[0]) & (found.share == 0.9)]
        errors += set(found.verdict) != {"not significant"}
    assert errors / 200 < 0.09


def test_results_have_every_arm_place_and_last_accuracy() -> None:
    found = analysis.arms(made(grid(fedavg=0.5, krum=0.3)))
    assert len(found) == 4 * (1 + len(analysis.PLACES))
    last = found[found.what == ACCURACY]
    assert last["mean"].to_numpy() == pytest.approx(0.9, abs=2e-3)
    (row,) = found[
        (found.strategy == "krum") & (found.sampler == "uniform") & (found.what == QUANTITIES[0])
        & (found.level == "local") & (found.share == 0.9)
    ].to_dict("records")  # fmt: skip
    assert row["mean"] == pytest.approx(0.3 * 0.6, abs=2e-3)
    assert Place(QUANTITIES[0], "local", 0.9) in analysis.PLACES


def test_every_arm_has_the_same_budget() -> None:
    for task in arms.TASKS:
        for strategy in arms.strategies_of(task):
            for arm in arms.arms_of(task, strategy):
                assert len(set(map(str, arm.settings))) == arms.BUDGET
    assert len(arms.STRATEGIES) == 12
    assert len(arms.SAMPLERS) == 4


def test_the_most_accurate_setting_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = iter([0.2, float("nan"), 0.9, 0.4, 0.9, 0.1] * 4)
    monkeypatch.setattr(choose, "_accuracy", lambda scenario, out: next(found))
    table = choose.cell("digits", "krum", 100, tmp_path, [])
    assert table[table.chosen].groupby("sampler").accuracy.first().tolist() == [0.9] * 4
    assert table.chosen.to_numpy().reshape(4, 6).tolist() == [[False, False, True, False, False, False]] * 4


def test_a_setting_that_diverges_has_no_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise RunError("its model is not finite")

    monkeypatch.setattr(fedmem, "run", fail)
    arm = arms.Arm(task="digits", strategy="krum", sampler="uniform")
    assert np.isnan(choose._accuracy(arm.scenario(0.1, 1, 0, tmp_path), tmp_path))


@pytest.mark.parametrize("share", SHARES)
def test_accuracies_are_shares_of_fedavg_on_the_other_seed(share: float) -> None:
    rows = arms.tries()
    best = rows[(rows.strategy == "fedavg") & (rows.sampler == "uniform") & (rows.task == "digits")].accuracy.max()
    assert accuracy_of("digits", share) == pytest.approx(share * best)
    assert arms.DEVELOPMENT not in run.STUDY.seeds


@pytest.mark.slow
def test_the_study_runs_in_small(tmp_path: Path) -> None:
    files = small_study(
        run.STUDY, tmp_path, SMALL[:-1], chosen=lambda task, strategy, seed: (task, strategy) == ("digits", "fedavg")
    )
    assert {"results.csv", "gates.csv", "matched_utility.png"} <= set(files)


@pytest.mark.slow
def test_the_search_runs_in_small(tmp_path: Path) -> None:
    files = small_study(
        choose.STUDY, tmp_path, SMALL, chosen=lambda task, strategy, seed: (task, strategy) == ("digits", "fedavg")
    )
    assert set(files) == {"tries.csv"}
