"""Tests of `fedmem/estimators/property_inference.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError
from fedmem.estimators.property_inference import PropertyInference
from fedmem.execution.run import run
from tests.banks import coins
from tests.estimators.update_helpers import update_view
from tests.tiny import tiny

CLIENTS, ROWS = 8, 64


def rows(view: View, **fields: Any) -> dict[tuple[str, int, str, str], Reading]:
    """Readings by metric, number of clients (0: the aggregate), what is read, and on whom the attack is trained."""
    readings = [reading for _, reading in PropertyInference(**fields).tests(view)]
    return {
        (r.metric, r.labels.integer("clients", 0), r.labels.text("statistic"), r.labels.text("trained_on")): r
        for r in readings
    }


def auc(view: View, clients: int = 1, read: str = "update", trained_on: str = "own", **fields: Any) -> float:
    return float(rows(view, **fields)["property_auc", clients, read, trained_on].value)


def one_step(coins: BoolArray, share: float, shift: float, rng: np.random.Generator) -> FloatArray:
    """(1, R, N, 4) updates of a linear model by one step: the means of (p − y) x over the rows of each client.

    The model answers p = .8 for every row, half of the labels are 1, and x is normal in three inputs. A share of the
    rows of a client with the property has a first input that is higher by `shift`. The last entry is constant, so that
    the length hardly varies.
    """
    runs = len(coins)
    has_property = np.zeros((runs, CLIENTS, ROWS), dtype=bool)
    has_property[:, : coins.shape[1], : round(share * ROWS)] = coins[:, :, None]
    x = rng.normal(size=(runs, CLIENTS, ROWS, 3))
    x[..., 0] += shift * has_property
    residual = 0.8 - (np.argsort(rng.random((runs, CLIENTS, ROWS)), axis=2) < ROWS // 2)
    update = (residual[..., None] * x).mean(axis=2)
    return np.concatenate([update, np.full((runs, CLIENTS, 1), 30.0)], axis=2)[None]


def distance(share: float, shift: float) -> float:
    """How many standard deviations apart the two means of the first entry of `one_step` are."""
    return float(share * 0.3 * shift / np.sqrt(0.34 / ROWS))


def test_auc_of_a_linear_step_has_its_closed_form() -> None:
    """Of a sum of s clients, the means differ as much, and the variance is s times as large: AUC Φ(d / √(2 s))."""
    rng = np.random.default_rng(0)
    dealt = coins(60, 4, rng)
    found = rows(update_view(one_step(dealt, 0.5, 0.8, rng), dealt, draws=0), sums=(4,), penalty=0.1)
    d = distance(0.5, 0.8)
    for clients in (1, 4):
        for trained_on in ("own", "others"):
            area = found["property_auc", clients, "update", trained_on]
            assert area.value == pytest.approx(ndtr(d / np.sqrt(2 * clients)), abs=0.07)
            assert area.low <= ndtr(d / np.sqrt(2 * clients)) <= area.high


def test_auc_falls_with_the_sum_and_grows_with_the_share() -> None:
    rng = np.random.default_rng(1)
    dealt = coins(60, 4, rng)
    views = [update_view(one_step(dealt, share, 1.0, rng), dealt, draws=0) for share in (0.1, 0.3, 0.6)]
    by_share = [auc(view, trained_on="others") for view in views]
    assert by_share == sorted(by_share)
    by_size = [auc(views[1], size, trained_on="others", sums=(2, 8)) for size in (1, 2, 8)]
    assert by_size == sorted(by_size, reverse=True)


def test_the_sum_of_all_clients_is_the_aggregate() -> None:
    rng = np.random.default_rng(2)
    dealt = coins(20, 3, rng)
    features = one_step(dealt, 0.5, 2.0, rng)
    local = update_view(features, dealt, draws=0)
    whole = update_view(features.mean(axis=2, keepdims=True), dealt, level="global", draws=0)
    assert auc(local, CLIENTS, sums=(CLIENTS,)) == auc(whole, 0)


def test_without_a_property_auc_is_half_and_p_holds_its_level() -> None:
    rng = np.random.default_rng(3)
    values, p = [], []
    for _ in range(60):
        dealt = coins(12, 2, rng)
        found = rows(update_view(rng.normal(size=(1, 12, 3, 8)), dealt, draws=39), sums=())
        for trained_on in ("own", "others"):
            values.append(found["property_auc", 1, "update", trained_on].value)
            p.append(found["property_auc.p", 1, "update", trained_on].value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.array(p) <= 0.05) < 0.1


def test_others_find_the_property_and_not_the_rows() -> None:
    """Rows that mark each victim in another way are known to an attack that trained on the victim alone."""
    rng = np.random.default_rng(4)
    dealt = coins(24, 3, rng)
    features = rng.normal(size=(1, 24, 4, 6))
    for victim in range(3):
        features[0, :, victim, victim] += 8 * dealt[:, victim]
    view = update_view(features, dealt, draws=0)
    assert auc(view, sums=()) > 0.9
    assert auc(view, sums=(), trained_on="others") < 0.7


def test_the_control_knows_labels_and_quantity() -> None:
    rng = np.random.default_rng(5)
    dealt = coins(16, 2, rng)
    facts = np.full((1, 16, 3, 3), 10.0)
    view = update_view(rng.normal(size=(1, 16, 3, 4)), dealt, facts=facts, draws=0)
    assert auc(view, read="labels", sums=()) == 0.5
    facts[0, :, :2, 0] += dealt
    for place in (0, 2):  # a class, and the number of rows
        shifted = np.roll(facts, place, axis=3)
        view = update_view(rng.normal(size=(1, 16, 3, 4)), dealt, facts=shifted, draws=0)
        assert auc(view, read="labels", sums=()) == 1.0
        assert auc(view, read="labels", trained_on="others", sums=()) == 1.0


def test_the_length_of_updates_does_not_count() -> None:
    rng = np.random.default_rng(6)
    dealt = coins(20, 1, rng)
    features = one_step(dealt, 0.5, 1.0, rng)
    longer = features * rng.uniform(0.1, 10, size=(1, 20, CLIENTS, 1))
    assert auc(update_view(features, dealt), sums=()) == auc(update_view(longer, dealt), sums=())
    # with the property the update is longer, and nothing else
    features = np.ones((1, 20, 2, 3)) * (1 + dealt[None, :, :, None])
    assert auc(update_view(features, dealt), sums=()) == 0.5


def test_rounds_are_read_alone_and_the_summary_averages_them() -> None:
    rng = np.random.default_rng(7)
    dealt = coins(30, 1, rng)
    before, during = one_step(dealt, 0.0, 0.0, rng), one_step(dealt, 0.9, 2.0, rng)
    both = np.concatenate([before, during])
    found = [auc(update_view(both, dealt, round_number=number), sums=()) for number in (1, 2)]
    assert abs(found[0] - 0.5) < 0.3
    assert found[1] > 0.95
    assert auc(update_view(both, dealt), sums=()) > 0.9
    assert not rows(update_view(both, dealt, round_number=0))
    assert ("property_auc", 1, "labels", "own") not in rows(update_view(both, dealt, round_number=1))


def test_diverged_runs_do_not_count() -> None:
    rng = np.random.default_rng(8)
    dealt = coins(20, 1, rng)
    features = one_step(dealt, 0.5, 3.0, rng)
    features[0, 3] = np.nan
    found = rows(update_view(features, dealt), sums=(2,))
    assert {found["property_auc", size, "update", "own"].n for size in (1, 2)} == {19}
    nothing = rows(update_view(np.full_like(features, np.nan), dealt))
    assert np.isnan(nothing["property_auc", 1, "update", "own"].value)
    assert ("property_auc.p", 1, "update", "own") not in nothing


def test_one_run_of_a_side_and_one_victim_are_undefined() -> None:
    features = np.random.default_rng(9).normal(size=(1, 8, 2, 3))
    single = (np.arange(8) == 0)[:, None]
    found = rows(update_view(features, single), sums=())
    area = found["property_auc", 1, "update", "own"]
    assert np.isnan([area.value, area.low, area.high]).all()
    assert not any(trained_on == "others" for *_, trained_on in found)


def test_twins_count_once() -> None:
    rng = np.random.default_rng(10)
    dealt = coins(12, 1, rng)
    features = one_step(dealt, 0.3, 1.0, rng)
    once = update_view(features, dealt, draws=0)
    twice = update_view(np.repeat(features, 2, axis=1), np.repeat(dealt, 2, axis=0), draws=0)
    twins = replace(twice, audit=replace(twice.audit, coin_row=np.repeat(np.arange(12), 2)))
    key = "property_auc", 1, "update", "own"
    assert rows(twins, sums=())[key] == rows(once, sums=())[key]


def test_kinds_with_several_coins_at_a_client_are_read_if_named() -> None:
    rng = np.random.default_rng(11)
    dealt = np.repeat(coins(20, 1, rng), 3, axis=1)
    dealt[:, 2] = coins(20, 1, rng)[:, 0]
    view = update_view(one_step(dealt[:, :1], 0.5, 3.0, rng), dealt, owner=[0, 0, 0], draws=0)
    assert not rows(view, sums=())
    assert auc(view, sums=(), kinds=("marked",)) > 0.9


def test_wrong_fields_are_refused() -> None:
    for fields in ({"kinds": ("a", "a")}, {"sums": (2, 2)}):
        with pytest.raises(ComponentError, match="name each once"):
            PropertyInference(**fields)
    with pytest.raises(ScenarioError, match=r"property_inference reads the signal .*add \{kind: update_features\}"):
        tiny(runs=8, estimators=[{"kind": "property_inference"}])


def test_a_run_reads_messages_sums_and_aggregates(tmp_path: Path) -> None:
    """And neither its executor nor the size of its shards changes a number."""
    settings: dict[str, Any] = {
        "runs": 8, "rounds": 2, "clients": 4, "bootstrap": 20, "observe": {"every": 1}, "sampler": {"kind": "everyone"},
        "injections": [
            {"kind": "corrupted", "clients": [0, 1], "per_client": 12, "included": "by_client", "label": "noisy"},
            {"kind": "typical", "per_client": 1, "clients": [2]},
        ],
        "signals": [{"kind": "update_features", "projections": 8}],
        "estimators": [{"kind": "property_inference", "kinds": ["noisy"]}],
    }  # fmt: skip
    tables = []
    for number, speed in enumerate(({"executor": "stacked", "shard": 8}, {"executor": "one_by_one", "shard": 3})):
        folder = run(tiny(**settings, speed=speed), out=tmp_path / str(number))
        table = pd.read_parquet(folder / "measurements.parquet")
        tables.append(table[table.source == "property_inference"].reset_index(drop=True))
    first, second = tables
    np.testing.assert_allclose(first.value, second.value, atol=0.1)
    assert set(first.subject) == {"noisy"}
    summary = first[(first.scope == "summary") & (first.metric == "property_auc")]
    assert set(summary[summary.level == "local"].clients) == {1, 2}
    assert set(summary.level) == {"local", "global"}
    assert set(summary.trained_on) == {"own", "others"}
    assert summary[(summary.level == "local") & (summary.clients == 1)].value.max() > 0.8


def test_a_named_kind_is_there_where_more_than_half_is_in() -> None:
    is_in = np.tile([[False, False], [True, False], [False, True], [True, True]], (6, 1))
    features = np.random.default_rng(12).normal(size=(1, 24, 2, 3))
    features[0, :, 0, 0] += 30 * is_in.all(axis=1)
    view = update_view(features, is_in, owner=[0, 0], draws=0)
    assert auc(view, sums=(), kinds=("marked",)) == 1.0


def test_runs_without_the_victim_do_not_count_in_aggregates() -> None:
    rng = np.random.default_rng(13)
    dealt = coins(20, 1, rng)
    view = update_view(rng.normal(size=(1, 20, 1, 3)), dealt, level="global", draws=0)
    present = np.arange(20)[:, None] >= 4
    view = replace(view, audit=replace(view.audit, client_in=present))
    assert rows(view)["property_auc", 0, "update", "own"].n == 16


def test_a_single_round_has_fewer_deals_than_the_summary() -> None:
    rng = np.random.default_rng(14)
    dealt = coins(10, 1, rng)
    features = rng.normal(size=(1, 10, 1, 2))
    key = "property_auc.p", 1, "update", "own"
    found = [rows(update_view(features, dealt, draws=240, round_number=number))[key].n for number in (1, None)]
    assert found == [200, 240]
