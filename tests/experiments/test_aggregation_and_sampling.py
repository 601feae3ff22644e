"""Aggregation and sampling: its statistics on made numbers, and the experiment in small."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.aggregation_and_sampling import analysis, figure, run
from fedmem.contracts.sampler import History
from fedmem.studies.experiment_figure import small_png
from tests.experiments.study_helpers import small_study

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "aggregation_and_sampling"
REFERENCE = {"strategy": "mean", "sampler": "uniform"}


def made(
    rng: np.random.Generator,
    seeds: int = 6,
    noise: float = 0.1,
    quantity: tuple[str, str, str, str] | None = None,
    top: float = np.inf,
) -> pd.DataFrame:
    """Clipping takes two bits away from the mean, atypical sampling adds half a bit, seeds differ by far more."""
    metric, how, kind, level = quantity or ("exposure", "", "random_pattern", "global")
    rows = []
    for seed in range(seeds):
        own = rng.normal(0, 3)
        for strategy, sampler in product(("mean", "clip", "other"), ("uniform", "atypical")):
            value = 5 + own - 2 * (strategy == "clip") + 0.5 * (sampler == "atypical") + rng.normal(0, noise)
            row: dict[str, Any] = {"data": "digits", "strategy": strategy, "sampler": sampler, "seed": seed}
            row |= {"metric": metric, "with": how, "kind": kind, "level": level, "value": value, "null": 1.44, "n": 9}
            rows.append(row | {"saturated_from": top})
    return pd.DataFrame(rows)


def test_effects_are_seed_paired_and_averaged_over_other_factors() -> None:
    values = made(np.random.default_rng(0))
    found: Any = analysis.effects(values, REFERENCE).set_index(["factor", "setting"])
    clip, other, atypical = (
        found.loc[key] for key in (("strategy", "clip"), ("strategy", "other"), ("sampler", "atypical"))
    )
    assert clip.difference == pytest.approx(-2, abs=0.2)
    assert clip.low < -2 < clip.high
    assert clip.verdict == "lower"
    assert other.verdict == "not significant"
    assert atypical.difference == pytest.approx(0.5, abs=0.2)
    assert atypical.verdict == "higher"
    cells = values.groupby(["strategy", "seed"]).value.mean().unstack(0)
    assert clip.difference == pytest.approx((cells["clip"] - cells["mean"]).mean())
    # the spread between seeds, 3, would hide it all
    assert clip.high - clip.low < 1 < clip.mean_high - clip.mean_low
    assert np.isnan(found.loc[("strategy", "mean")].difference)
    assert found.loc[("strategy", "mean")].verdict == ""


def test_holm_covers_all_settings_and_only_primary_quantities() -> None:
    rng = np.random.default_rng(1)
    others = [made(rng, quantity=quantity) for quantity in analysis.PRIMARY[1:]]
    found = analysis.effects(pd.concat([made(rng), *others]), REFERENCE)
    tested = found[(found.factor == "strategy") & found.p.notna()]
    assert len(tested) == 2 * len(analysis.PRIMARY)
    for _, family in tested.groupby("level"):
        assert family.p_adjusted.min() == pytest.approx(family.p.min() * len(family))
    other = analysis.effects(made(rng, quantity=("exposure", "", "typical", "local")), REFERENCE)
    assert other.p_adjusted.isna().all()
    assert set(other.verdict) == {""}
    assert (other.setting == "clip").any()


def test_both_levels_are_tested() -> None:
    levels = {level: {one[:3] for one in analysis.PRIMARY if one[3] == level} for level in ("local", "global")}
    assert levels["local"] == levels["global"] - {("test_accuracy", "", "")}
    local = ("memorisation", "", "random_pattern", "local")
    found = analysis.effects(made(np.random.default_rng(7), quantity=local), REFERENCE)
    assert found.set_index("setting").loc["clip"].verdict == "lower"
    assert len(figure.draw(found).axes) == len(figure.PANELS), "panels without values are empty"


def test_two_saturated_sides_are_marked_without_a_difference() -> None:
    local = ("exposure", "", "random_pattern", "local")
    both = made(np.random.default_rng(8), quantity=local, top=-20.0)
    clip: Any = analysis.effects(both, REFERENCE).set_index("setting").loc["clip"]
    assert (clip.saturated, clip.reference_saturated, clip.verdict) == (True, True, "saturated")
    assert clip.p_adjusted < 0.05, "p alone would call it"
    assert analysis.shares(both).saturated.all()
    means = both.groupby("strategy").value.mean()
    one = both.assign(saturated_from=(means["mean"] + means["clip"]) / 2)
    clip = analysis.effects(one, REFERENCE).set_index("setting").loc["clip"]
    assert (clip.saturated, clip.reference_saturated, clip.verdict) == (False, True, "lower")
    picture = small_png(figure.draw(analysis.effects(one, REFERENCE)))
    assert picture != small_png(figure.draw(analysis.effects(one.assign(saturated_from=20.0), REFERENCE)))


def test_the_committed_tables_mark_what_is_saturated() -> None:
    effects, shares = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("effects", "shares"))
    exposure = effects[effects.metric == "exposure"]
    assert (exposure.saturated == (exposure["mean"] >= np.log2(301) - 0.5)).all()
    pairs = effects[(effects.verdict.notna()) & effects.saturated & (effects.reference_saturated == True)]  # noqa: E712
    assert len(pairs) > 20
    assert set(pairs.verdict) == {"saturated"}
    assert shares[(shares.metric == "exposure") & (shares.level == "local")].saturated.all()
    assert not shares[(shares.metric == "exposure") & (shares.level == "global")].saturated.any()


def test_stopping_round_is_the_first_with_the_wanted_accuracy() -> None:
    stop, curve = analysis.stopping_round, pd.Series([0.4, 0.6, 0.55, 0.7], index=[1, 2, 3, 4])
    assert stop(curve, 0.58) == 2
    assert stop(curve, 0.6) == 2
    assert stop(curve, 0.61) == 4
    assert stop(curve, 0.3) == 1
    assert stop(curve, 0.71) is None


def paired(rng: np.random.Generator, seeds: int = 5) -> pd.DataFrame:
    """Clipping takes two bits from FedAvg after equal rounds, and half a bit at equal accuracy."""
    rows = []
    for seed in range(seeds):
        own = rng.normal(0, 3)
        arms = {("{kind: fedavg}", 0): 8.0, ("clip", 0): 6.0, ("clip", 7): 6.5}
        for (strategy, stop), mean in arms.items():
            value = mean + own + rng.normal(0, 0.05)
            row: dict[str, Any] = {"data": "digits", "strategy": strategy, "stop": stop, "seed": seed, "n": 30 - stop}
            row |= {"metric": "exposure", "with": "", "kind": "random_pattern", "level": "local", "value": value}
            rows.append(row | {"saturated_from": np.inf})
    return pd.DataFrame(rows)


def test_strategies_are_compared_with_both_ends_of_fedavg() -> None:
    values = paired(np.random.default_rng(9))
    found: Any = analysis.compare_matched(values).set_index("against")
    assert found.difference["full"] == pytest.approx(-2, abs=0.1)
    assert found.difference["stopped"] == pytest.approx(-0.5, abs=0.1)
    assert found.high["stopped"] - found.low["stopped"] < 0.5, "differences are paired by seeds"
    assert found.stop.to_dict() == {"full": 0, "stopped": 7}
    assert found.fedavg_n.to_dict() == {"full": 30, "stopped": 23}
    assert found.verdict.to_dict() == {"full": "lower", "stopped": "lower"}
    # a strategy that FedAvg never reaches has no stopped arm
    assert set(analysis.compare_matched(values[values.stop == 0]).against) == {"full"}
    high = analysis.compare_matched(values.assign(saturated_from=-20.0))
    assert set(high.verdict) == {"saturated"}


def test_the_second_part_has_room_above_exposure_and_new_seeds() -> None:
    import fedmem
    from experiments.aggregation_and_sampling import matched

    grid, part = (fedmem.load_scenario(FOLDER / f"{name}.yaml") for name in ("scenario", "matched"))
    assert part.references >= 4095 > grid.references
    assert not set(matched.STUDY.seeds) & set(run.STUDY.seeds)
    same = {"model", "injections", "client", "rounds", "clients", "runs", "dataset", "estimators"}
    assert all(grid.dump()[name] == part.dump()[name] for name in same)
    for stop in (1, 3, 4, 17, 24):
        stopped = fedmem.load_scenario(FOLDER / "matched.yaml", matched.until(stop))
        assert stopped.observed_rounds == tuple(sorted({0, *range(max(1, stop - 3), stop + 1)}))


def test_seed_without_a_cell_is_excluded_from_its_differences() -> None:
    values = made(np.random.default_rng(2))
    lost = (values.strategy == "clip") & (values.sampler == "atypical") & (values.seed == 3)
    # far off, so that a seed compared over other samplers than the reference would be seen
    values.loc[values.sampler == "atypical", "value"] += 100
    found: Any = analysis.effects(values[~lost], REFERENCE).set_index(["factor", "setting"])
    assert found.loc[("strategy", "clip")].seeds == 5
    assert found.loc[("strategy", "other")].seeds == 6
    assert found.loc[("strategy", "clip")].difference == pytest.approx(-2, abs=0.2)


def test_shares_are_those_of_the_variances_that_were_put_in() -> None:
    rng = np.random.default_rng(3)
    a, b, ab = rng.normal(0, 2, 12), rng.normal(0, 1, 10), rng.normal(0, 1, (12, 10))
    cube = (a[:, None] + b + ab)[..., None] + rng.normal(0, 1, (12, 10, 8)) + 50 * rng.normal(size=8)
    main = ab.mean(1, keepdims=True) - ab.mean(), ab.mean(0, keepdims=True) - ab.mean()
    parts = np.array([np.var(a + main[0][:, 0]), np.var(b + main[1][0]), np.var(ab - main[0] - main[1])])
    np.testing.assert_allclose(analysis.omega(cube), parts / (parts.sum() + 1), atol=0.03)
    nothing = [analysis.omega(rng.normal(size=(12, 10, 8))) for _ in range(40)]
    # unbiased, so that no effect is found where there is none; a share of sums of squares would be above zero
    assert np.abs(np.mean(nothing, axis=0)).max() < 0.01
    assert np.min(nothing) < 0
    assert analysis.omega(np.ones((3, 2, 4))).tolist() == [0, 0, 0]


def test_shares_come_with_their_error_and_need_whole_seeds() -> None:
    values = made(np.random.default_rng(4))
    found: Any = analysis.shares(values).set_index("source")
    assert found.loc["strategy"].share > found.loc["sampler"].share > found.loc["interplay"].share
    assert found.loc["strategy"].share == pytest.approx(0.92, abs=0.05)
    assert (found.standard_error < 0.05).all()
    lost = values.drop(values.index[0])
    assert set(analysis.shares(lost).seeds) == {5}
    assert analysis.shares(values[values.seed < 2]).empty


def test_gates_hold_where_intervals_say_so() -> None:
    rng = np.random.default_rng(5)
    quantities = [("exposure", "", "random_pattern", level) for level in ("local", "global")]
    quantities += [("memorisation", "", kind, "local") for kind in ("random_pattern", "typical")]
    quantities += [("auc", "lira", "mislabelled", "global")]
    tables = [made(rng, noise=0.05, quantity=quantity) for quantity in quantities]
    for table, shift in zip(tables, (9, 9, 4, 0, 0), strict=True):
        # seeds are alike here: only some of the gates are paired
        table["value"] += shift - table.groupby("seed").value.transform("mean")
    found = analysis.gates(pd.concat(tables), REFERENCE, "clip", "atypical")
    assert list(zip(found.holds, found.of, strict=True)) == [(6, 6), (2, 2), (6, 6), (1, 1), (1, 1)]
    tables[1].loc[tables[1].strategy == "clip", "value"] += 4
    tables[0]["value"] -= 9
    found = analysis.gates(pd.concat(tables), REFERENCE, "clip", "atypical")
    assert list(zip(found.holds, found.of, strict=True)) == [(0, 6), (2, 2), (6, 6), (0, 1), (1, 1)]
    # a setting that was not run has no gate
    fewer = analysis.gates(pd.concat(tables), REFERENCE, "absent", "atypical")
    assert fewer.of.tolist() == [6, 2, 6, 0, 1]


def cohorts(sampler: Any) -> tuple[tuple[int, ...], ...]:
    """Who takes part in four rounds among 20 clients of unlike sizes, some of which hold atypical examples."""
    history, found = History.start(range(10, 30), atypical=[6] * 5 + [0] * 15), []
    for round_number in range(1, 5):
        picked = sampler.cohort(round_number, history, np.random.default_rng(round_number))
        found.append(tuple(picked.tolist()))
        last = history.last_round.copy()
        last[picked] = round_number
        history = replace(history, last_round=last)
    return tuple(found)


def test_crossed_settings_load_and_are_large_enough() -> None:
    import fedmem

    assert len(run.STRATEGIES) >= 12
    assert len(run.SAMPLERS) >= 4
    changes = [[f"strategy={one}"] for one in run.STRATEGIES] + [[f"sampler={one}"] for one in run.SAMPLERS]
    for change in changes + list(run.DATA.values()):
        scenario = fedmem.load_scenario(FOLDER / "scenario.yaml", change)
        assert scenario.runs >= 16
        assert scenario.roster == "shared"
    samplers = [fedmem.load_scenario(FOLDER / "scenario.yaml", [f"sampler={one}"]).sampler for one in run.SAMPLERS]
    assert len({cohorts(sampler) for sampler in samplers}) == len(samplers), "some setting is another by another name"


@pytest.mark.nightly
@pytest.mark.slow
def test_the_second_part_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.aggregation_and_sampling import matched

    small = ["dataset={kind: digits, test: 200}", "partition={kind: iid}", "runs=8", "client.steps=2"]
    small += ["bootstrap=20", "references=50", "population=50"]
    monkeypatch.setattr(matched, "COMPARED", ("krum",))
    files = small_study(
        matched.STUDY, tmp_path, small, seeds=(5, 6), chosen=lambda data, seeds: data == "Fashion, alpha 1"
    )
    assert set(files) == {"matched.csv"}
    found = pd.read_csv(tmp_path / "first" / "matched.csv", keep_default_na=False)
    assert "full" in set(found.against)
    assert {"exposure", "memorisation", "auc", "test_accuracy"} == set(found.metric)
    assert {"local", "global"} == set(found.level)


@pytest.mark.nightly
@pytest.mark.slow
def test_small_experiment_gives_equal_tables_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["dataset={kind: digits, test: 200}", "partition={kind: iid}", "rounds=2", "runs=8", "client.steps=2"]
    small += ["observe={every: 1}", "bootstrap=20", "references=50", "population=50"]
    clipping = next(strategy for strategy in run.STRATEGIES if "norm_clipping" in strategy)
    monkeypatch.setattr(run, "VARY", {"strategy": (run.STRATEGIES[0], clipping), "sampler": (run.SAMPLERS[0],)})
    files = small_study(run.STUDY, tmp_path, small, seeds=(0, 1), chosen=lambda data, seed: data == "Fashion, alpha 1")
    assert set(files) == {"effects.csv", "shares.csv", "retention.csv", "gates.csv", "effects.png"}
    found = pd.read_csv(tmp_path / "first" / "effects.csv")
    assert set(found.setting) == {"{kind: fedavg}", "{kind: norm_clipping, radius: 0.5}", "{kind: uniform, size: 8}"}
    assert {"exposure", "memorisation", "auc", "test_accuracy"} == set(found.metric)
