"""The experiment on samples of generative models: its claims on made values, what it reads, its page and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.generative import gates, run
from experiments.generative.analysis import C_T, DENSITY, DISTANCE, KINDS, LIRA, NEAREST, of_run, table
from fedmem.results.read import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "generative"


def made(values: Mapping[str, float], seeds: int = 5) -> pd.DataFrame:
    """One value of each quantity for each kind at both levels, with noise over seeds."""
    names = {"density": DENSITY, "distance": DISTANCE, "lira": LIRA, "nearest": NEAREST, "c_t": C_T}
    rng = np.random.default_rng(0)
    rows = [
        {"what": names[name], "kind": kind, "level": level, "seed": seed, "value": value + rng.normal(0, 0.002)}
        for seed in range(seeds)
        for name, value in values.items()
        for kind in KINDS
        for level in ("local", "global")
    ]
    return pd.DataFrame(rows)


def verdicts(values: pd.DataFrame, start: str) -> set[str]:
    found = gates.gates(values)
    return set(found[found.claim.str.startswith(start)].verdict) if len(found) else set()


def test_signs_and_nulls_of_claims_are_right() -> None:
    for name, start, copied, none, opposite in (
        ("density", "training on an image of 1", 0.5, 0.0, -0.5),
        ("distance", "samples come nearer", -0.5, 0.0, 0.5),
        ("nearest", "the nearest sample reveals", 0.7, 0.5, 0.3),
        ("c_t", "C_T is lower", -1.0, 0.0, 1.0),
    ):
        assert verdicts(made({name: copied}), start) == {"holds"}
        assert "not significant" in verdicts(made({name: none}), start)
        assert verdicts(made({name: opposite}), start) == {"contradicted"}
        assert verdicts(made({name: copied}, seeds=1), start) == {"undefined"}


def test_attacks_are_compared_seed_by_seed() -> None:
    start = "LiRA finds more"
    assert verdicts(made({"lira": 0.9, "nearest": 0.7}), start) == {"holds"}
    assert verdicts(made({"lira": 0.7, "nearest": 0.9}), start) == {"contradicted"}
    assert verdicts(made({"lira": 0.7}), start) == set()


@pytest.mark.slow
def test_values_of_a_run_are_those_of_its_summary(tmp_path: Path) -> None:
    small = ["rounds=1", "observe={every: 1}", "signals[1].samples=5", "probes[1].samples=5"]
    run_folder = read(fedmem.run(fedmem.load_scenario(FOLDER / "scenario.yaml", small), out=tmp_path))
    found = of_run(run_folder)
    assert not found.duplicated(["what", "kind", "level"]).any()
    rows = run_folder.measurements
    is_asked = (rows.scope == "summary") & (rows.metric == "sample_distance_gain") & (rows.subject == "four")
    value = found[(found.what == DISTANCE) & (found.kind == "four") & (found.level == "local")].value
    assert value.tolist() == (100 * rows[is_asked & (rows.place == "owner")].value).tolist()
    assert {DENSITY, LIRA, NEAREST, C_T} <= set(found.what)


def test_table_has_no_mean_of_some_seeds() -> None:
    values = made({"density": 0.1})
    values.loc[values.seed == 2, "value"] = np.nan
    assert table(values)["mean"].isna().all()


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "gates.csv")


def test_committed_tables_have_all_kinds_and_seeds(committed: pd.DataFrame) -> None:
    results = pd.read_csv(FOLDER / "results.csv")
    assert set(results.kind) == set(KINDS)
    assert results.seeds.min() >= 5
    assert len(run.STUDY.seeds) >= 5
    assert 0 not in run.STUDY.seeds
    assert set(committed.claim) == {claim.words for claim in gates.CLAIMS}
