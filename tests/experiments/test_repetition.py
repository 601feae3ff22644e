"""Repetition: slopes of made values, and the experiment in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.repetition import analysis, figure, run
from fedmem.studies.experiment import with_references
from tests.experiments.study_helpers import small_study

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "repetition"


def made(sign: float, noise: float = 0.05, seeds: int = 5) -> pd.DataFrame:
    """Two bits more and a tenth less for each doubling, or the opposite; seeds differ by more."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        own = rng.normal()
        for what, metric, step in (
            ("secrets", "exposure", 2.0),
            ("secrets", "memorisation", -0.1),
            ("passages", "memorisation", -0.1),
        ):
            for level in ("local", "global"):
                for power in range(5):
                    value = own + sign * step * power + rng.normal(0, noise * abs(step))
                    row = {"seed": seed, "what": what, "metric": metric, "level": level, "times": 2**power}
                    top = 9.5 if metric == "exposure" else 0.95
                    rows.append({**row, "value": value, "n": 10, "saturated_from": top})
    return pd.DataFrame(rows)


def test_slopes_are_per_seed_and_verdicts_follow_their_signs() -> None:
    found = analysis.slopes(made(1.0))
    assert found.slope.to_numpy() == pytest.approx(np.repeat([2.0, -0.1, -0.1], 2), rel=0.05)
    assert (found.verdict == "holds").all()
    assert (found.high - found.low < 0.2).all()
    assert (analysis.slopes(made(-1.0)).verdict == "contradicted").all()
    assert (analysis.slopes(made(0.0)).verdict == "not significant").all()
    single = analysis.slopes(made(1.0, seeds=1))
    assert (single.verdict == "undefined").all()
    assert single.low.isna().all()


def test_a_seed_that_lacks_a_cell_has_no_slope() -> None:
    values = made(1.0)
    assert analysis.slopes(values[values.times < 16]).slope.isna().all()
    found = analysis.slopes(values[(values.seed > 0) | (values.times < 16)])
    assert set(found.seeds) == {4}
    assert found.slope.to_numpy() == pytest.approx(np.repeat([2.0, -0.1, -0.1], 2), rel=0.05)


def test_saturated_means_are_marked_and_counted_in_the_slope() -> None:
    values = made(1.0)
    local = (values.level == "local") & (values.metric == "exposure")
    values.loc[local & (values.times >= 4), "value"] = 9.95
    table: Any = analysis.table(values).set_index(["metric", "level", "times"])
    exposure = table.loc["exposure"]
    assert exposure.loc["local"].saturated.tolist() == [False, False, True, True, True]
    assert analysis.slopes(values).set_index(["claim", "level"]).saturated.tolist()[0] == 3
    assert analysis.slopes(made(-1.0)).saturated.iloc[1] == 0
    drawn = figure.draw(with_references(table.reset_index(), 990))
    assert len(drawn.axes) == 3
    assert "saturated: no differences seen" in {text.get_text() for text in drawn.legends[0].get_texts()}


def test_a_coin_masks_one_of_the_copies_that_labels_say() -> None:
    scenario = fedmem.load_scenario(FOLDER / "scenario.yaml")
    times = {}
    for injection in scenario.injections:
        copies = injection.total_copies(scenario.clients, 999) // scenario.clients
        times[injection.name] = copies
        assert copies - vars(injection)["unmasked"] == 1
    assert times == analysis.SECRETS | analysis.PASSAGES


@pytest.mark.nightly
@pytest.mark.slow
def test_the_experiment_in_small(tmp_path: Path) -> None:
    small = ["rounds=2", "runs=2", "client.epochs=1", "observe.every=2", "dataset.max_chars=2500"]
    files = small_study(run.STUDY, tmp_path, small, seeds=(0, 1))
    assert set(files) == {"results.csv", "slopes.csv", "repetition.png"}
    found = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(found.what) == {"secrets", "passages"}
    assert (found.groupby(["what", "metric", "level"]).size() == 5).all()
    assert (found.seeds == 2).all()
