"""The experiment on mitigations: its choice of examples, its attacks, and its claims on made values and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.mitigations import claims, run
from experiments.mitigations.analysis import (
    ACCURACY,
    GAIN,
    MEMORY,
    OF_KIND,
    ONE,
    SERIES,
    UNADAPTED,
    WORST,
    WORST_BEFORE,
    arrays_of,
    of_arm,
    table,
    top_memorisation,
)
from experiments.mitigations.attacks import adapted_auc, transferred_auc, transferred_scores
from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.statistics import in_minus_out
from fedmem.results.read import read, read_bank

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "mitigations"
STOPS = (1, 4, 8)


def coins(rng: np.random.Generator, runs: int = 16, count: int = 40) -> BoolArray:
    """Balanced coins (R, m)."""
    half = np.arange(runs)[:, None] < runs // 2
    return rng.permuted(np.broadcast_to(half, (runs, count)), axis=0)


def test_the_choice_does_not_bias_without_memorisation() -> None:
    rng = np.random.default_rng(1)
    fair, naive = [], []
    for _ in range(150):
        is_in, values = coins(rng), rng.random((16, 40)) + rng.random(40)
        fair.append(top_memorisation(values, values, is_in))
        naive.append(np.sort(in_minus_out(values, is_in))[-4:].mean())
    assert abs(np.mean(fair)) < 3 * np.std(fair) / np.sqrt(len(fair))
    # chosen and judged in the same runs, the largest of noise look memorised
    assert np.mean(naive) > 0.15


def test_the_most_vulnerable_are_found() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(rng)
    effect = np.where(np.arange(40) < 4, 0.6, 0.0)
    values = is_in * effect + rng.normal(0, 0.02, is_in.shape)
    assert top_memorisation(values, values, is_in) == pytest.approx(0.6, abs=0.02)
    # chosen by other runs, in which others are memorised
    others = is_in * effect[::-1] + rng.normal(0, 0.02, is_in.shape)
    assert top_memorisation(values, others, is_in) == pytest.approx(0.0, abs=0.02)
    assert top_memorisation(values, values, is_in, share=1.0) == pytest.approx(0.06, abs=0.01)


def test_the_most_vulnerable_of_equal_or_missing_values() -> None:
    is_in = coins(np.random.default_rng(3))
    assert top_memorisation(np.ones((16, 40)), np.ones((16, 40)), is_in) == 0
    lost = np.full((16, 40), np.nan)
    assert np.isnan(top_memorisation(lost, lost, is_in))


def made_margins(rng: np.random.Generator, gap: float = 2.0) -> tuple[FloatArray, BoolArray]:
    is_in = coins(rng)
    return rng.normal(0, 1, is_in.shape) + rng.normal(0, 3, 40) + gap * is_in, is_in


def test_shadows_of_the_target_itself_are_lira() -> None:
    margin, is_in = made_margins(np.random.default_rng(4))
    expected = Lira(variance="pooled").scores(Signals(margin=margin, is_in=is_in))
    np.testing.assert_allclose(transferred_scores(margin, margin, is_in), expected, rtol=1e-9)
    kind = np.repeat(["a", "b"], 20)
    assert transferred_auc(margin, margin, is_in, kind) == pytest.approx(adapted_auc(margin, is_in, kind), abs=1e-12)


def test_an_attack_that_knows_the_mitigation_finds_more() -> None:
    rng = np.random.default_rng(5)
    margin, is_in = made_margins(rng)
    kind = np.repeat("a", 40)
    # the mitigation turns the signal around, which only shadow runs with it can know
    turned = -margin
    assert adapted_auc(turned, is_in, kind) == pytest.approx(adapted_auc(margin, is_in, kind))
    assert transferred_auc(turned, margin, is_in, kind) < 0.6 < adapted_auc(turned, is_in, kind)


def test_attacks_find_nothing_where_coins_change_nothing() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(20):
        margin, is_in = made_margins(rng, gap=0.0)
        other, _ = made_margins(rng, gap=2.0)
        found.append(
            (adapted_auc(margin, is_in, np.repeat("a", 40)), transferred_auc(margin, other, is_in, np.repeat("a", 40)))
        )
    assert np.mean(found, axis=0) == pytest.approx(0.5, abs=0.03)


def test_scores_without_shadows_are_undefined() -> None:
    is_in = np.zeros((4, 2), dtype=bool)
    is_in[0] = True
    assert np.isnan(transferred_scores(np.zeros((4, 2)), np.full((4, 2), np.nan), is_in)).all()


def made(slopes: Mapping[str, float], delays: Mapping[str, float] | None = None, seeds: int = 5) -> pd.DataFrame:
    """Arms that gain accuracy from stop to stop, and of each quantity `slope` times the accuracy.

    An arm with a delay is less accurate at every stop by so much.
    """
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for arm, slope in slopes.items():
            for stop, reached in zip(STOPS, (0.4, 0.7, 0.99), strict=True):
                accuracy = reached - (delays or {}).get(arm, 0.0) + rng.normal(0, 1e-3)
                key = {"data": "digits", "arm": arm, "seed": seed, "round": stop}
                rows.append({**key, "what": ACCURACY, "level": "global", "value": accuracy})
                for what in (*claims.MEASURES, GAIN):
                    for level in ("local", "global"):
                        value = slope * accuracy + rng.normal(0, 1e-4)
                        rows.append({**key, "what": what, "level": level, "value": value})
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, words: str) -> set[str]:
    found = claims.gates(values)
    chosen = found[found.claim.str.startswith(words)]
    assert len(chosen) == 2 * len(claims.CLAIMED)
    return set(chosen.verdict)


def test_claims_have_the_right_sign() -> None:
    assert verdicts(made({"none": 0.5, "median": 0.3}), "median") == {"holds"}
    assert verdicts(made({"none": 0.3, "median": 0.5}), "median") == {"contradicted"}
    assert verdicts(made({"none": 0.5, "median": 0.3}, seeds=1), "median") == {"undefined"}


def test_the_matched_difference_is_that_of_the_slopes() -> None:
    values = made({"none": 0.5, "median": 0.3}, {"median": 0.03})
    for share in claims.SHARES:
        accuracy = claims.accuracy_of("digits", share)
        found = claims.matched_difference(arrays_of(values), "digits", "median", "none", MEMORY, "local", accuracy)
        assert found.difference.value == pytest.approx(0.2 * accuracy, abs=2e-3)
    at = claims.at_levels(values)
    reference = at[(at.arm == "none") & (at["at"] == "0.97") & (at["what"] == WORST)]
    np.testing.assert_allclose(reference["mean"], 0.5 * claims.accuracy_of("digits", 0.97), atol=2e-3)


def test_less_learnt_is_not_less_memorised() -> None:
    values = made({"none": 0.5, "median": 0.5}, {"median": 0.05})
    apart = claims.differences(values)
    memory = apart[apart["what"] == MEMORY].set_index("at")["mean"]
    assert memory[claims.LAST].min() > 0.02
    assert memory["0.97"].abs().max() < 1e-3
    assert verdicts(values, "median") == {"not significant"}


def test_an_arm_that_does_not_learn_has_no_answer() -> None:
    values = made({"none": 0.5, "median": 0.1}, {"median": 0.3})
    assert verdicts(values, "median") == {"not reached"}
    found = claims.gates(values)
    assert found[["mean", "p", "holm"]].isna().all(axis=None)


def test_a_seed_without_values_leaves_no_answer() -> None:
    values = made({"none": 0.5, "median": 0.3})
    values.loc[(values.seed == 2) & (values.arm == "median") & (values["what"] != ACCURACY), "value"] = np.nan
    assert verdicts(values, "median") == {"undefined"}


def test_leaving_out_by_loss_is_compared_with_chance() -> None:
    values = made({"none": 0.6, claims.BY_LOSS: 0.3, claims.AT_RANDOM: 0.5})
    found = claims.gates(values)
    control = found[found.claim.str.contains("at random$")]
    np.testing.assert_allclose(control["mean"], 0.2 * claims.accuracy_of("digits", 0.97), atol=2e-3)
    assert set(control.verdict) == {"holds"}


def test_verdicts_need_significance_over_all_rows() -> None:
    found = claims.gates(made(dict.fromkeys(run.ARMS, 0.5)))
    assert len(found) == 2 * len(claims.CLAIMED) * (len(claims.ARM_ORDER) + 1)
    assert (found.holm >= found.p).all()
    assert found.holm.min() >= min(1.0, found.p.min() * len(found)) - 1e-12
    assert "holds" not in set(found.verdict)


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made({"none": 0.5})
    values.loc[(values.seed == 2) & (values["what"] == MEMORY), "value"] = np.nan
    assert table(values).query("what == @MEMORY")["mean"].isna().all()


def test_arms_are_those_of_the_claims() -> None:
    assert tuple(run.ARMS) == (claims.REFERENCE, *claims.ARM_ORDER)


@pytest.mark.slow
def test_values_of_a_run_are_those_of_its_rounds(tmp_path: Path) -> None:
    small = ["runs=8", "rounds=2", "observe.rounds=[1, 2]", "client.epochs=1", "model.hidden=[4]"]
    folders = [fedmem.run(scenario, out=tmp_path) for scenario in run.scenarios("digits", "median", 0, small)]
    banks = [read_bank(folder) for folder in folders]
    found = of_arm(read(folders[0]), *banks)
    assert not found.duplicated(["what", "level", "round"]).any()
    assert {ACCURACY, MEMORY, WORST, WORST_BEFORE, ONE, SERIES, UNADAPTED, GAIN} <= set(found["what"])
    rows = read(folders[0]).measurements
    kinds = rows[(rows.metric == "memorisation") & (rows.statistic == "probability") & (rows.scope == "round")]
    for name, words in OF_KIND.items():
        for level, place in (("local", "owner"), ("global", "")):
            chosen = (kinds.subject == name) & (kinds.level == level) & (kinds.place == place) & (kinds["round"] == 2)
            mine = found[(found["what"] == f"{MEMORY} {words}") & (found.level == level) & (found["round"] == 2)]
            assert mine.value.item() == pytest.approx(kinds[chosen].value.item())
    # all mitigations of a seed have the same examples and coins, without which nothing could be transferred
    assert (banks[0].audit.is_in == banks[1].audit.is_in).all()
    assert (banks[0].audit.examples.inputs == banks[1].audit.examples.inputs).all()
    undefended = of_arm(read(folders[1]), banks[1], banks[1])
    assert undefended[undefended["what"] == GAIN].value.abs().max() < 1e-12


def test_committed_tables_have_all_arms_and_seeds() -> None:
    tables = {name: pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates", "levels", "differences")}
    for found in tables.values():
        assert "digits" in set(found.data) <= set(run.DATA)
        assert found.seeds.min() == len(run.STUDY.seeds) >= 5
    of_digits = {name: found[found.data == "digits"] for name, found in tables.items()}
    assert set(of_digits["results"].arm) == set(run.ARMS)
    assert len(of_digits["gates"]) == 2 * len(claims.CLAIMED) * (len(claims.ARM_ORDER) + 1)
    assert 0 not in run.STUDY.seeds
