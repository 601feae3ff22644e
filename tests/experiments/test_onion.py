"""Privacy onion: contrasts and claims on made values, and the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.onion import analysis, run
from fedmem.contracts.arrays import FloatArray
from fedmem.federation.build import build
from tests.banks import coins, make_view
from tests.tiny import tiny

FOLDER = Path(analysis.__file__).parent
KIND = ["typical"] * 8 + ["mislabelled"] * 2
OWNER = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1])


def arm(memory: FloatArray, removed: tuple[int, ...] = (), accuracy: float = 0.8) -> analysis.Arm:
    return analysis.Arm(
        memory=dict.fromkeys(analysis.LEVELS, memory),
        accuracy=dict.fromkeys(analysis.LEVELS, accuracy),
        removed=np.array(removed, dtype=np.int64),
    )


def made(name: str = "owner") -> pd.DataFrame:
    """Examples 0 and 4 are removed, 0 and 5 or 0 and 4 in controls; the rest rises by .2, or by .1 and .05."""
    memory = np.array([0.9, 0.1, 0.2, 0.3, 0.8, 0.1, 0.2, 0.3, 0.9, 1.0])
    arms = {
        "scores": arm(memory - 0.05),
        "whole": arm(memory),
        "removed": arm(np.where(np.isin(range(10), [0, 4]), 0.0, memory + 0.2), (0, 4), accuracy=0.75),
        "matched_0": arm(np.where(np.isin(range(10), [0, 5]), 0.0, memory + 0.1), (0, 5)),
        "matched_1": arm(np.where(np.isin(range(10), [0, 4]), 0.0, memory + 0.05), (0, 4)),
    }
    return analysis.of_selection(name, KIND, OWNER, arms)


def value(frame: pd.DataFrame, group: str, measure: str, contrast: str, level: str = "local") -> float:
    rows = frame[(frame.group == group) & (frame.measure == measure) & (frame.contrast == contrast)]
    return float(rows[rows.level.isin([level, ""])].value.item())


def test_contrasts_are_over_the_rows_that_stay_in_all_arms() -> None:
    frame = made()
    names = ("start", "removed", "matched", "difference", "naive")
    changes = {name: value(frame, "inner", "memorisation", name) for name in names}
    expected = {"start": 1.1 / 5, "removed": 0.2, "matched": 0.075, "difference": 0.125, "naive": 0.25}
    assert changes == pytest.approx(expected)
    assert value(frame, "mislabelled", "memorisation", "removed") == pytest.approx(0.2)
    assert value(frame, "mislabelled", "saturated", "start") == 0.5
    assert value(frame, "test", "test_accuracy", "difference") == pytest.approx(-0.05)
    outer = {name: value(frame, "outer", "memorisation", name) for name in ("scores", "start", "after")}
    assert outer == pytest.approx({"scores": 0.8, "start": 0.85, "after": 0.0})
    assert value(frame, "outer", "overlap", "start") == 0.75
    assert (value(frame, "inner", "examples", "start"), value(frame, "outer", "examples", "start")) == (5, 2)


def test_rows_of_other_clients_are_apart() -> None:
    memory = np.zeros(10)
    rise = np.where(OWNER == 0, 0.0, 0.3)
    arms = {"scores": arm(memory), "whole": arm(memory)}
    arms |= {"removed": arm(memory + rise, (0,)), "matched_0": arm(memory, (1,))}
    frame = analysis.of_selection("one_client", KIND, OWNER, arms)
    by_group = {group: value(frame, group, "memorisation", "difference") for group in ("same_client", "other_clients")}
    assert by_group == pytest.approx({"same_client": 0.0, "other_clients": 0.3})
    counts = {group: value(frame, group, "examples", "start") for group in by_group}
    assert counts == {"same_client": 2, "other_clients": 4}


def test_a_group_without_examples_is_undefined() -> None:
    arms = {key: arm(np.zeros(10)) for key in ("scores", "whole")}
    arms |= {"removed": arm(np.zeros(10), (0, 1)), "matched_0": arm(np.zeros(10), (2, 3))}
    frame = analysis.of_selection("one_client", KIND, OWNER, arms)
    assert value(frame, "same_client", "examples", "start") == 0
    assert np.isnan(value(frame, "same_client", "memorisation", "difference"))


def federations(effect: float, seed: int) -> pd.DataFrame:
    """200 rows whose noisy scores choose 40, or 10 of one client; without these, the others rise by `effect`.

    Scores come from runs of their own. The arms share noise with each other, as they share random inclusion.
    """
    rng = np.random.default_rng(seed)
    truth, owner = rng.uniform(0, 0.4, 200), np.arange(200) % 8
    scores, shared = (truth + rng.normal(0, 0.2, 200) for _ in range(2))
    frames = []
    for name, rows, count in (("owner", np.arange(200), 40), ("one_client", np.flatnonzero(owner == 0), 10)):
        layers = {
            "removed": rows[np.argsort(-scores[rows])[:count]],
            "matched_0": rng.choice(rows, count, replace=False),
        }
        arms = {"scores": arm(scores), "whole": arm(shared)}
        for key, layer in layers.items():
            memory = shared + rng.normal(0, 0.02, 200) + (effect if key == "removed" else 0.0)
            memory[layer] = 0.0
            arms[key] = arm(memory, tuple(layer.tolist()))
        frames.append(analysis.of_selection(name, ["typical"] * 200, owner, arms))
    return pd.concat(frames).assign(seed=seed)


def claims(effect: float) -> pd.DataFrame:
    """All claims over five made seeds, and the rise that a comparison with the scores would show."""
    values = pd.concat([federations(effect, seed) for seed in range(5)], ignore_index=True)
    tested = analysis.gates(values).set_index(["claim", "selection", "level"])
    naive = values[(values.contrast == "naive") & (values.group == "inner") & (values.level == "local")].value
    assert naive.mean() == pytest.approx(0.05 + effect, abs=0.02), "regression to the mean is about .05"
    return tested


RISE = ("memorisation of the inner layer rises more", "owner", "local")


@pytest.mark.parametrize(("effect", "verdict"), [(0.1, "holds"), (-0.1, "contradicted"), (0.0, "not significant")])
def test_a_planted_rise_is_found_and_its_absence_is_not(effect: float, verdict: str) -> None:
    tested = claims(effect)
    assert tested.verdict[RISE] == verdict
    assert tested["mean"][RISE] == pytest.approx(effect, abs=0.01)
    assert tested.verdict["memorisation of other clients rises", "one_client", "global"] == verdict
    assert tested.verdict["less than 0.02 is left of the outer layer", "owner", "local"] == "undefined"
    ahead = "memorisation of the outer layer is higher", "owner", "local"
    assert tested.verdict[ahead] == "holds"
    assert (tested.holm.dropna() >= tested.p.dropna()).all()


def test_a_claim_without_values_is_undefined() -> None:
    tested, claim = claims(0.1), ("tpr of the inner layer rises more", "owner", "local")
    assert tested.verdict[claim] == "undefined"
    assert np.isnan([tested.p[claim], tested.resolves[claim]]).all()


def test_attacks_read_only_the_rows_of_a_group() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(16, 260, rng)
    is_exposed = np.arange(260) < 130
    view = make_view(rng.normal(size=is_in.shape) + 4.0 * is_exposed * is_in, is_in, round_number=None)
    exposed, hidden = (analysis.attack_success(view, np.flatnonzero(rows)) for rows in (is_exposed, ~is_exposed))
    assert exposed["auc"] > 0.95
    assert exposed["tpr"] > 0.5
    assert hidden["auc"] == pytest.approx(0.5, abs=0.05)
    assert hidden["tpr"] == pytest.approx(analysis.FPR, abs=0.02)
    assert np.isnan(analysis.attack_success(view, np.arange(20))["tpr"]), "too few rows for 1 %"


def test_runs_of_another_number_have_the_same_examples() -> None:
    """The federation with the scores holds the same examples, with other random inclusion, initial weights apart."""
    first, second = build(tiny(runs=8)), build(tiny(runs=16, repeat=1))
    for name in ("owner", "kind"):
        assert np.array_equal(getattr(first.audit, name), getattr(second.audit, name))
    assert np.array_equal(first.audit.examples.ids, second.audit.examples.ids)
    assert not np.array_equal(first.audit.is_in, second.audit.is_in[:8])


def test_runs_with_other_examples_are_refused() -> None:
    audit = pd.DataFrame({"subject": [0, 1], "kind": "typical", "owner": [0, 1], "target": 3})
    run.check_same_examples(audit, audit.copy())
    with pytest.raises(AssertionError, match="other examples"):
        run.check_same_examples(audit, audit.assign(owner=[1, 0]))


def test_the_scenario_has_the_kinds_and_clients_of_the_analysis() -> None:
    scenario = fedmem.load_scenario(FOLDER / "scenario.yaml")
    natural = [injection for injection in scenario.injections if injection.name == analysis.NATURAL]
    assert len(natural) == 1
    assert set(analysis.SELECTIONS) == set(analysis.DRAWS)
    removal = fedmem.scenario.yaml_source.read_file(FOLDER / "removal.yaml").value["derive"]["remove"]
    assert {"kinds": [analysis.NATURAL], **analysis.SELECTIONS["owner"]} == removal


def test_the_committed_tables_are_those_of_the_analysis() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.seeds) == set(gates.seeds) == {5}
    expected = claims(0.0).reset_index()
    names = ["claim", "selection", "level"]
    assert gates[names].to_numpy().tolist() == expected[names].to_numpy().tolist()
    assert set(results.selection) == set(analysis.SELECTIONS)
    wide = results.pivot(index=analysis.KEYS[:-1], columns="contrast", values="mean")
    changes = wide.loc[wide.index.get_level_values("group") != "outer"]
    assert changes.difference.to_numpy() == pytest.approx(changes.removed - changes.matched, abs=2e-4, nan_ok=True)
    assert (changes.start[changes.removed.notna()] > -0.05).all()


def test_claims_have_the_values_of_the_results() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    rises = gates[gates.family == "inner layer"]
    assert len(rises) == 2 * len(analysis.CLAIMED) * len(analysis.LEVELS)
    for rise in rises.to_dict("records"):
        is_row = (results.selection == rise["selection"]) & (results.level == rise["level"])
        is_row &= (results.group == "inner") & (results.contrast == "difference")
        is_row &= results.measure == str(rise["claim"]).split()[0]
        values = results[is_row][["mean", "low", "high"]].to_numpy().tolist()
        assert values == [[rise["mean"], rise["low"], rise["high"]]]
