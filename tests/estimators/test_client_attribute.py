"""Tests of `fedmem/estimators/client_attribute.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError
from fedmem.estimation.held_out_pairs import PairArea
from fedmem.estimators import client_attribute
from fedmem.estimators.client_attribute import ClientAttribute
from fedmem.execution.run import run
from tests.banks import coins
from tests.estimators.update_helpers import update_view
from tests.tiny import tiny

RUNS, CLIENTS = 6, 10
POSITIVE = np.arange(CLIENTS) % 2 == 0


def view_of(features: FloatArray, *, facts: FloatArray | None = None, share: FloatArray | None = None) -> View:
    shares = np.broadcast_to(np.where(POSITIVE, 0.8, 0.1), features.shape[:3]) if share is None else share
    dealt = coins(features.shape[1], 1, np.random.default_rng(0))
    return update_view(features, dealt, facts=facts, share=np.array(shares), draws=0)


def features_of(shift: float, seed: int = 0, own: float = 0.3) -> FloatArray:
    """(2, R, N, 5) updates with an offset of each client, a shift of positive clients, and a constant entry."""
    rng = np.random.default_rng(seed)
    table = 0.3 * rng.normal(size=(2, RUNS, CLIENTS, 5)) + own * rng.normal(size=(CLIENTS, 5))
    table[:, :, POSITIVE, 0] += shift
    table[..., 4] = 20.0
    return table


def rows(view: View, **fields: Any) -> dict[tuple[str, int, str], Reading]:
    readings = [reading for _, reading in ClientAttribute(**fields).tests(view)]
    return {(r.metric, r.labels.integer("clients"), r.labels.text("statistic")): r for r in readings}


def test_an_attribute_is_found_and_falls_with_the_sum() -> None:
    found = rows(view_of(features_of(2.0)), sums=(2, 8))
    area = found["client_attribute_auc", 1, "update"]
    assert area.value > 0.9
    assert area.n == CLIENTS
    assert area.low < area.value <= area.high
    assert found["client_attribute_auc.p", 1, "update"].value < 0.02
    by_size = [found["client_attribute_auc", size, "update"].value for size in (1, 2, 8)]
    assert by_size[0] >= by_size[1] >= by_size[2]
    # eight of ten clients are all but the pair
    assert ("client_attribute_auc", 9, "update") not in rows(view_of(features_of(2.0)), sums=(9,))


def test_clients_that_differ_alone_are_not_found() -> None:
    """An attack that had trained on the clients that it scores would know each of them."""
    areas = [
        rows(view_of(features_of(0.0, seed, own=5.0)), sums=())["client_attribute_auc", 1, "update"].value
        for seed in range(30)
    ]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.12)


def test_the_control_knows_labels_and_quantity() -> None:
    facts = np.full((2, RUNS, CLIENTS, 3), 10.0)
    found = rows(view_of(features_of(2.0), facts=facts), sums=())
    assert found["client_attribute_auc", 1, "labels"].value == 0.5
    for column in (0, 2):  # a class, and the number of rows
        shifted = facts.copy()
        shifted[:, :, POSITIVE, column] += 3
        found = rows(view_of(features_of(0.0), facts=shifted), sums=(2,))
        assert found["client_attribute_auc", 1, "labels"].value == 1.0
        assert found["client_attribute_auc", 1, "update"].value < 0.9


def test_the_threshold_is_of_the_mean_share() -> None:
    rng = np.random.default_rng(1)
    noisy = np.where(POSITIVE, 0.8, 0.1) + rng.uniform(-0.2, 0.2, size=(2, RUNS, CLIENTS))
    key = "client_attribute_auc", 1, "update"
    assert rows(view_of(features_of(2.0), share=noisy), sums=())[key] == rows(view_of(features_of(2.0)), sums=())[key]
    for threshold in (0.9, 0.05):
        area = rows(view_of(features_of(2.0)), sums=(), threshold=threshold)[key]
        assert np.isnan([area.value, area.low, area.high]).all()
        assert area.n == CLIENTS


def test_clients_without_updates_or_rows_do_not_count() -> None:
    features, share = features_of(2.0), np.array(np.broadcast_to(np.where(POSITIVE, 0.8, 0.1), (2, RUNS, CLIENTS)))
    features[:, :, 1] = np.nan
    features[:, 2] = np.nan  # a diverged run
    share[:, :, 4] = np.nan
    found = rows(view_of(features, share=share), sums=())["client_attribute_auc", 1, "update"]
    assert found.n == CLIENTS - 2
    assert found.value > 0.9


def test_other_places_and_signals_have_no_rows() -> None:
    view = view_of(features_of(2.0))
    assert not rows(replace(view, round=1))
    assert not rows(replace(view, place="others"))
    assert not rows(replace(view, level="global", place=""))
    assert not rows(replace(view, sets={}))
    with pytest.raises(ScenarioError, match=r"client_attribute reads the signal row_share.*add \{kind: row_share\}"):
        tiny(signals=[{"kind": "update_features"}], estimators=[{"kind": "client_attribute"}])
    with pytest.raises(ComponentError, match="name each once"):
        ClientAttribute(sums=(2, 2))


def test_a_run_has_rows_and_they_are_measured_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "runs": 4, "rounds": 1, "clients": 6, "bootstrap": 20, "sampler": {"kind": "everyone"},
        "observe": {"every": 1}, "partition": {"kind": "dirichlet", "alpha": 1.0},
        "signals": [{"kind": "update_features", "projections": 8}, {"kind": "row_share", "value": "1"}],
        "estimators": [{"kind": "client_attribute", "threshold": 0.25, "sums": [2]}],
    }  # fmt: skip
    table = pd.read_parquet(run(tiny(**settings), out=tmp_path) / "measurements.parquet")
    table = table[(table.source == "client_attribute") & (table.metric == "client_attribute_auc")]
    assert set(zip(table.clients, table.statistic, strict=True)) == {
        (size, read) for size in (1, 2) for read in ("update", "labels")
    }
    assert (table.n == 6).all()
    assert table.value.between(0, 1).all()


def test_a_share_at_the_threshold_is_no_majority() -> None:
    share = np.broadcast_to(np.where(POSITIVE, 0.5, 0.1), (2, RUNS, CLIENTS))
    area = rows(view_of(features_of(2.0), share=share), sums=())["client_attribute_auc", 1, "update"]
    assert np.isnan(area.value)


@pytest.mark.parametrize("size", [2, 4])
def test_no_sum_has_the_rest_of_a_pair(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Sums of a fit have neither client of the pair, and a scored sum has one: each client has an entry of its own."""
    members: dict[tuple[int, int], set[int]] = {}

    def area(features: Any, *rest: Any) -> PairArea:
        table = np.stack([features((1, 4), client) for client in range(CLIENTS)])
        if table.shape[2] == CLIENTS:
            members.update(
                {(run, k): set(np.flatnonzero(table[k, run])) for run in range(RUNS) for k in range(CLIENTS)}
            )
        return PairArea(value=0.5, low=0.0, high=1.0, p=1.0, n=CLIENTS, deals=1)

    monkeypatch.setattr(client_attribute, "client_area", area)
    rows(view_of(np.tile(np.eye(CLIENTS), (2, RUNS, 1, 1))), sums=(size,))
    assert len(members) == RUNS * CLIENTS
    for (_, client), clients in members.items():
        assert client in clients
        assert len(clients) >= size
        assert clients & {1, 4} == {client} & {1, 4}
