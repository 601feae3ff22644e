"""Unlearning: claims on made values, and the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.unlearning import analysis, client
from experiments.unlearning.arms import CLIENT, FEDERATIONS, PILOT, phase_of
from experiments.unlearning.gates import gates
from fedmem.estimation import roc

FOLDER = Path(analysis.__file__).parent
LEFT = {"no_op": 0.9, "retrain": 0.0}


def made(seeds: int = 5, left: float = 0.3) -> pd.DataFrame:
    """Inexact methods leave `left`, U-LiRA finds .99 and a population .9; ascent overshoots and costs 20 pp at once."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for federation, forgetting in FEDERATIONS.items():
            kinds = client.OF_CLIENT if federation == "client" else (analysis.FORGOTTEN,)
            for method in forgetting.methods:
                for when in (analysis.AT_ONCE, analysis.AFTER):
                    cell = {"federation": federation, "seed": seed, "method": method, "when": when}
                    cell |= {"place": "global", "attack": ""}
                    is_ascent = method == "gradient_ascent" or (federation == "client" and method == "pga")
                    value = -0.3 if is_ascent and federation != "client" else LEFT.get(method, left)
                    for kind in kinds:
                        for place in ("global", "local", "others"):
                            row = {**cell, "kind": kind, "place": place}
                            rows.append({**row, "what": "residual", "value": value})
                            rows.append({**row, "what": "bits", "value": 10 * value})
                        rows.append({**cell, "kind": kind, "what": "before", "value": 0.9})
                        rows.append({**cell, "kind": kind, "what": "kept_bits", "value": 9.0})
                    for attack, auc in (("lira", 0.99), ("attack_p", 0.9)):
                        rows.append({**cell, "kind": kinds[0], "what": "auc", "attack": attack, "value": auc})
                    rows.append({**cell, "kind": "client", "what": "auc", "value": 0.9})
                    fall = -0.2 if is_ascent else 0.0
                    rows.append({**cell, "kind": analysis.RETAINED, "what": "change", "value": fall})
                    rows.append({**cell, "kind": "", "what": "accuracy_change", "value": fall})
    values = pd.DataFrame(rows)
    return values.assign(value=values.value + rng.normal(0, 0.002, len(values)))


def verdicts(values: pd.DataFrame, federation: str = "examples") -> pd.Series:
    found = gates(values)
    return found[found.federation == federation].set_index(["claim", "place"]).verdict


def test_claims_hold_where_they_are_true() -> None:
    found = verdicts(made())
    accuracy = found[found.index.get_level_values(0).str.startswith("accuracy")]
    ascent = ("accuracy is below that of fine-tuning: gradient_ascent", "global")
    assert accuracy[ascent] == "holds"
    overshoot = found[found.index.get_level_values(0) == "something is left: gradient_ascent"]
    assert set(overshoot) == {"contradicted"}
    others = found.drop([*accuracy.index, *overshoot.index])
    assert set(others) == {"holds"}


def test_nothing_left_is_not_called_left() -> None:
    found = verdicts(made(left=0.0))
    left = found[found.index.get_level_values(0) == "something is left: pga"]
    assert "holds" not in set(left)


def test_a_wrong_reference_is_contradicted() -> None:
    values = made()
    is_residual = (values.method == "retrain") & (values.what == "residual")
    values.loc[is_residual, "value"] += 0.2
    assert verdicts(values)["retraining leaves less than 0.05", "global"] == "contradicted"


def test_a_seed_without_a_value_leaves_a_claim_undefined() -> None:
    values = made()
    values = values[~((values.method == "no_op") & (values.what == "residual") & (values.seed == 2))]
    assert verdicts(values)["training on adds less than 0.05", "global"] == "undefined"


def test_the_pilot_seed_is_not_reported() -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.seeds) == {5}
    assert PILOT >= 5


def test_claims_about_a_client_and_texts_hold_where_true() -> None:
    all_claims = gates(made())
    for federation in ("client", "texts"):
        found = all_claims[all_claims.federation == federation].set_index(["claim", "place"]).verdict
        claims = found.index.get_level_values(0)
        of_ascent = claims.str.contains("is left: gradient_ascent") & (federation == "texts")
        assert set(found[of_ascent]) <= {"contradicted"}
        is_same = claims.str.startswith("accuracy is below") & claims.str.contains("fed_eraser")
        assert set(found[~of_ascent & ~is_same]) == {"holds"}


def test_a_client_that_is_left_after_retraining_contradicts() -> None:
    values = made()
    is_left = (values.federation == "client") & (values.method == "retrain") & (values.what == "residual")
    values.loc[is_left & (values.kind == "left_pattern"), "value"] += 0.2
    found = verdicts(values[values.federation == "client"], "client")
    assert found["retraining leaves of left_pattern less than 0.05", "global"] == "contradicted"
    assert found["retraining leaves of left_label less than 0.05", "global"] == "holds"


def test_a_client_is_compared_example_by_example() -> None:
    # every run answers alike, so that nothing is left, although each run has other examples
    is_in, had = np.array([[1, 0], [0, 1], [1, 1], [0, 1]], dtype=bool), np.array([True, True, False, False])
    values = np.tile([0.9, 0.1], (4, 1))
    assert client.residual(values, is_in, had) == 0
    assert client.scores_of_runs(values, is_in, had) == pytest.approx(0)
    values[had] += 0.05
    assert client.residual(values, is_in, had) == pytest.approx(0.05)
    assert client.scores_of_runs(values, is_in, had) == pytest.approx([0.05, 0.05, 0, 0])


def test_an_attack_cannot_separate_equal_models() -> None:
    """Both groups have means over other numbers of runs, whose rounding would order them."""
    had, is_in = np.arange(16) < 8, np.ones((16, 12), dtype=bool)
    scores = client.scores_of_runs(np.tile(np.random.default_rng(0).normal(size=12), (16, 1)), is_in, had)
    assert scores.tolist() == [0.0] * 16
    assert roc.auc(scores[None], had[None]).value == 0.5


def test_only_examples_that_a_run_with_the_client_had_count() -> None:
    is_in, had = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=bool), np.array([True, True, False, False])
    values = np.array([[0.8, 9.0], [0.6, 9.0], [0.2, 5.0], [0.2, 5.0]])
    assert client.residual(values, is_in, had) == pytest.approx(0.5)


def test_phases_forget_what_their_federation_says() -> None:
    scenario = fedmem.load_scenario(FOLDER / "client.yaml", [phase_of("retrain", "client")])
    before = scenario.previous
    assert before is not None
    assert before.leave_out is not None
    assert (scenario.rounds, before.rounds) == (FEDERATIONS["client"].trained, FEDERATIONS["client"].trained)
    kinds = [str(getattr(injection, "label", "")) for injection in before.injections]
    assert set(kinds) == {*client.OF_CLIENT, analysis.RETAINED}
    texts = fedmem.load_scenario(FOLDER / "texts.yaml", [phase_of("fine_tune", "texts")])
    assert texts.previous is not None
    assert texts.previous.rounds == FEDERATIONS["texts"].trained
    assert texts.clients > CLIENT


def test_reference_and_control_are_in_the_committed_tables() -> None:
    results = (
        pd.read_csv(FOLDER / "results.csv", keep_default_na=False)
        .query("federation == 'examples'")
        .set_index(["method", "what", "kind", "place", "attack", "when"])["mean"]
        .astype(float)
    )
    key = ("forget", "global", "")
    before = results["fine_tune", "before", *key, analysis.AFTER]
    # the model that fine-tuning starts from is the one before the phase
    assert results["fine_tune", "residual", *key, analysis.AT_ONCE] == pytest.approx(before)
    assert results["fine_tune", "change", *key, analysis.AT_ONCE] == 0
    residual = results["pga", "residual", *key, analysis.AFTER]
    assert residual - before == pytest.approx(results["pga", "change", *key, analysis.AFTER], abs=1e-3)


def test_costs_are_those_that_methods_declare() -> None:
    table = pd.read_csv(FOLDER / "costs.csv").set_index(["federation", "method"])
    costs = table.loc["examples"]
    assert costs.models.to_dict() == {
        "no_op": 0, "fine_tune": 0, "gradient_ascent": 0, "neg_grad_plus": 0, "retrain": 0, "pga": 3, "fed_eraser": 47,
    }  # fmt: skip
    assert costs.rounds["retrain"] == 24
    assert costs.trainings["fed_eraser"] == 36
    assert table.rounds["client", "retrain"] == 12
    # half of the runs have two clients, the others three
    assert table.models["client", "pga"] == 2.5
    assert table.gradients["texts", "gradient_ascent"] == 20


def test_all_federations_are_in_the_committed_tables() -> None:
    results, committed = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert committed.claim.tolist() == gates(made()).claim.tolist()
    for federation, forgetting in FEDERATIONS.items():
        assert set(results[results.federation == federation].method) == set(forgetting.methods)
    rows = results[(results.what == "residual") & (results.method == "retrain") & (results.when == analysis.AT_ONCE)]
    assert rows["mean"].tolist() == [0.0] * len(rows), "initial weights are the same in all runs"
