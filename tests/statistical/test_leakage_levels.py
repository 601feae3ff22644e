"""Does what can be rebuilt fall from client to aggregate, on real pictures, and would this test notice if not?"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

from fedmem.errors import ComponentError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.probes._clusters import mean_interval
from fedmem.scenario.loading import parse_scenario

pytestmark = pytest.mark.statistical

LEVELS = ["local", "sum", "global"]

SCENARIO = {
    "rounds": 1,
    "runs": 8,
    "clients": 8,
    "population": 100,
    "references": 1000,
    "bootstrap": 20,
    "dataset": {"kind": "fashion_mnist", "rows": 300, "test": 900},
    "model": {"kind": "mlp", "hidden": [64]},
    "client": {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 4},
    "injections": [{"kind": "random_pattern", "per_client": 6}, {"kind": "typical", "per_client": 6}],
    "observe": {"levels": LEVELS, "sums": [4]},
    "probes": [
        {
            "kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 60}, "levels": LEVELS,
            "victims": 4, "runs": 8, "first_step": False,
        }
    ],
}  # fmt: skip


@cache
def readings() -> pd.DataFrame:
    """A row for each victim, a column for each metric and level."""
    scenario = parse_scenario(json.dumps(SCENARIO), name="levels")
    try:
        federation = build(scenario)
    except ComponentError as error:
        pytest.skip(f"fedmem fetch fashion_mnist first: {error}")
    rows = []
    for one in simulate(scenario, federation).measurements:
        labels = one.reading.labels
        if one.run is not None and "kind" in labels and "coin" not in labels:
            place = {
                "run": one.run,
                "subject": one.reading.subject,
                "owner": labels.get("owner"),
                "kind": labels.get("kind"),
            }
            rows.append({**place, "metric": one.reading.metric, "level": one.level, "value": one.reading.value})
    frame = pd.DataFrame(rows)
    return frame.pivot(index=["kind", "run", "owner", "subject"], columns=["metric", "level"], values="value")


def fall(kind: str, metric: str, first: str, second: str, *, flipped: bool = False) -> tuple[float, float, float]:
    """Mean paired difference between two levels, clustered by run and by holder; with `flipped` the levels by lot."""
    own = readings().loc[kind]
    values = (own[metric, first] - own[metric, second]).dropna()
    signs = np.random.default_rng(0).integers(2, size=len(values)) * 2 - 1 if flipped else 1
    differences = values.to_numpy() * signs
    runs, owners = (values.index.get_level_values(name).tolist() for name in ("run", "owner"))
    assert len(values) >= 20
    return float(differences.mean()), *mean_interval(differences, runs, owners)


@pytest.mark.parametrize("kind", ["random_pattern", "typical"])
def test_quality_falls_from_client_to_sum_to_aggregate(kind: str) -> None:
    for first, second in (("local", "sum"), ("sum", "global"), ("local", "global")):
        for metric, least in (("margin", 0.5), ("ssim", 0.01)):
            value, low, _ = fall(kind, metric, first, second)
            assert value > least, (metric, first, second)
            assert low > 0, (metric, first, second)
    if kind == "typical":
        # canaries are identified even in the aggregate of an untrained model
        value, low, _ = fall(kind, "identified", "local", "global")
        assert value > 0.2
        assert low > 0


@pytest.mark.parametrize("kind", ["random_pattern", "typical"])
def test_levels_assigned_at_random_do_not_differ(kind: str) -> None:
    _, low, high = fall(kind, "margin", "local", "global", flipped=True)
    assert low < 0 < high
