"""The privacy frontier: its table from made readings, its noise against its targets, and the experiment in small."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.privacy_frontier import analysis, figure, run
from fedmem.contracts.evidence import Participation
from fedmem.privacy import spending
from fedmem.privacy.accounting import guarantee_of
from tests.experiments.study_helpers import small_study

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "privacy_frontier"


def made(seeds: int = 4) -> pd.DataFrame:
    """Noise takes a bit of exposure and a tenth of accuracy; seeds differ by far more."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        own = rng.normal(0, 2)
        for place, target, exposure, accuracy in (
            ("none", math.inf, 4.0, 0.9),
            ("central", 8.0, 3.0, 0.8),
            ("central", math.inf, 3.5, 0.85),
        ):
            cell = {"data": "digits", "place": place, "target": target, "seed": seed, "epsilon": target - 0.1 * seed}
            for metric, kind, level, value, null in (
                ("exposure", "random_pattern", "global", exposure + own, 1.44),
                ("accuracy", "", "global", accuracy, math.nan),
            ):
                value += rng.normal(0, 0.01)
                row = {"metric": metric, "kind": kind, "level": level, "value": value, "null": null}
                rows.append(cell | row | {"saturated_from": 8.5 if metric == "exposure" else math.inf})
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seeds() -> None:
    table: Any = analysis.results(made()).set_index(["place", "target", "metric"])
    row = table.loc[("central", 8.0, "exposure")]
    assert row.difference == pytest.approx(-1, abs=0.05)
    assert row.difference_low < -1 < row.difference_high
    assert row.difference_high - row.difference_low < 0.2 < row.high - row.low
    assert (row.seeds, row.null, row.epsilon) == (4, 1.44, 8.0)
    assert table.loc[("central", math.inf, "accuracy")].difference == pytest.approx(-0.05, abs=0.05)
    assert np.isnan(table.loc[("none", math.inf, "exposure")].difference)


def test_a_seed_without_its_reference_has_no_difference() -> None:
    readings = made()
    readings = readings[(readings.place != "none") | (readings.seed > 0)]
    table: Any = analysis.results(readings).set_index(["place", "target", "metric"])
    assert table.loc[("central", 8.0, "exposure")].seeds == 4
    assert table.loc[("central", 8.0, "exposure")].difference == pytest.approx(-1, abs=0.05)
    alone = analysis.results(readings[readings.place != "none"])
    assert alone.difference.isna().all()


def test_saturated_exposure_is_marked_beside_its_reference() -> None:
    readings = made()
    exposure, plain = readings.metric == "exposure", readings.place == "none"
    readings.loc[exposure & plain, "value"] = 8.9
    readings.loc[exposure & (readings.place == "central") & np.isinf(readings.target), "value"] = 8.7
    table: Any = analysis.results(readings).set_index(["place", "target", "metric"])
    flags = table.loc[table.index.get_level_values("metric") == "exposure", ["saturated", "reference_saturated"]]
    assert flags.loc[("none", math.inf, "exposure")].tolist()[0]
    assert flags.loc[("central", math.inf, "exposure")].tolist() == [True, True]
    assert flags.loc[("central", 8.0, "exposure")].tolist() == [False, True]
    assert not table.loc[("none", math.inf, "accuracy")].saturated
    assert len(figure.draw(table.reset_index()).axes) == 6


def test_the_figure_takes_a_table_with_gaps() -> None:
    assert len(figure.draw(analysis.results(made())).axes) == 6


@pytest.mark.parametrize("place", ["central", "local", "record"])
def test_noise_of_every_place_reaches_its_target_epsilon(place: str) -> None:
    """For a client that is there in every round; without noise nothing is promised, with more noise more."""
    shared = fedmem.load_scenario(FOLDER / "scenario.yaml")
    found = {}
    for target in (8.0, math.inf):
        cell = run.Cell("digits", place, target, 0)
        scenario = fedmem.load_scenario(FOLDER / "scenario.yaml", cell.settings(shared, 15))
        there = [
            Participation(run=0, round=round_number, client=0, num_examples=15, failed=False)
            for round_number in range(1, scenario.rounds + 1)
        ]
        bank: Any = SimpleNamespace(participation=there)
        own = [*spending.of_scenario(scenario), *spending.of_records(scenario, bank, scenario.rounds).values()]
        found[target] = min((guarantee_of(one.releases).epsilon for one in own), default=math.inf)
    assert 7.5 < found[8.0] <= 8.0
    assert math.isinf(found[math.inf])


def test_every_place_has_every_epsilon_and_none_has_one() -> None:
    every = run.cells(range(3))
    assert len(every) == len(set(every)) == 2 * 3 * (1 + 3 * len(run.EPSILONS))
    assert {cell.target for cell in every if cell.place == "none"} == {math.inf}
    assert min(run.EPSILONS) == 0.5


@pytest.mark.nightly
@pytest.mark.slow
def test_small_experiment_gives_equal_results_twice(tmp_path: Path) -> None:
    small = ["rounds=2", "runs=8", "clients=12", "references=50", "observe={rounds: [1]}", "bootstrap=20"]
    small += ["probes[1].attack.steps=2", "model.hidden=[8]", "privacy.delta=0.001"]
    files = small_study(
        run.STUDY,
        tmp_path,
        small,
        chosen=lambda data, place, target, seed: data == "digits" and target in (8, math.inf),
    )
    assert set(files) == {"results.csv", "privacy_frontier.png"}
    found = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(found.place) == {"none", "central", "local", "record"}
    assert {"accuracy", "exposure", "memorisation", "auc", "identified", "margin.difference"} <= set(found.metric)
    noisy = found[found.target == 8]
    assert (noisy.epsilon <= 8).all()
    assert np.isinf(found[np.isinf(found.target)].epsilon).all()


def test_page_reports_that_exposure_starts_at_its_null() -> None:
    page, table = " ".join((FOLDER / "README.md").read_text().split()), pd.read_csv(FOLDER / "results.csv")
    place = (
        (table.place == "none") & (table.data == "digits") & (table.metric == "exposure") & (table.level == "global")
    )
    row: Any
    (row,) = table[place].itertuples()
    assert row.low < row.null < row.high, "the exposure of the aggregate is not told from chance"
    assert f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}] bits, and {row.null:.2f} is chance" in page
    assert (table[table.metric == "exposure"].saturated == (table[table.metric == "exposure"].value >= 8.469)).all()
