"""Unlearning: claims on made values, and the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.unlearning import analysis
from experiments.unlearning.arms import METHODS, PILOT

FOLDER = Path(analysis.__file__).parent
LEFT = {"no_op": 0.9, "retrain": 0.0}


def made(seeds: int = 5, left: float = 0.3) -> pd.DataFrame:
    """Inexact methods leave `left`, U-LiRA finds .99 and a population .9; ascent overshoots and costs 20 pp at once."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for method in METHODS:
            for when in (analysis.AT_ONCE, analysis.AFTER):
                cell = {"seed": seed, "method": method, "when": when, "place": "global", "attack": ""}
                forgotten = {**cell, "kind": analysis.FORGOTTEN}
                is_ascent = method == "gradient_ascent"
                value = -0.3 if is_ascent else LEFT.get(method, left)
                for place in ("global", "local", "others"):
                    rows.append({**forgotten, "what": "residual", "place": place, "value": value})
                rows.append({**forgotten, "what": "before", "value": 0.9})
                for attack, auc in (("lira", 0.99), ("attack_p", 0.9)):
                    rows.append({**forgotten, "what": "auc", "attack": attack, "value": auc})
                fall = -0.2 if is_ascent else 0.0
                rows.append({**cell, "kind": analysis.RETAINED, "what": "change", "value": fall})
                rows.append({**cell, "kind": "", "what": "accuracy_change", "value": fall})
    values = pd.DataFrame(rows)
    return values.assign(value=values.value + rng.normal(0, 0.002, len(values)))


def verdicts(values: pd.DataFrame) -> pd.Series:
    return analysis.gates(values).set_index(["claim", "place"]).verdict


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


def test_reference_and_control_are_in_the_committed_tables() -> None:
    results = (
        pd.read_csv(FOLDER / "results.csv", keep_default_na=False)
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
    costs = pd.read_csv(FOLDER / "costs.csv").set_index("method")
    assert costs.models.to_dict() == {
        "no_op": 0, "fine_tune": 0, "gradient_ascent": 0, "neg_grad_plus": 0, "retrain": 0, "pga": 3, "fed_eraser": 47,
    }  # fmt: skip
    assert costs.rounds["retrain"] == 24
    assert costs.trainings["fed_eraser"] == 36
