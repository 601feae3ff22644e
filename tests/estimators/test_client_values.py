"""Tests of `fedmem/estimators/client_values.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmem.contracts.estimator import Models, SetEvidence, View
from fedmem.contracts.evidence import Evidence, SignalEvidence
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError
from fedmem.estimation.statistics import student_mean
from fedmem.estimators.client_values import ClientValues
from fedmem.execution.run import run
from tests.banks import coins, make_view
from tests.tiny import tiny

RUNS, CLIENTS, ROWS = 16, 6, 5


def view_of(values: dict[str, Any], client_in: Any, loss: Any = None, *, round_number: int | None = None) -> View:
    """A view of the aggregate whose test set has these values (R, N) of clients by the start of their names."""
    rng = np.random.default_rng(0)
    runs = len(next(iter(values.values())))
    loss = rng.normal(size=runs) if loss is None else loss
    numbers = np.arange(runs, dtype=np.int32)
    whole = np.full(runs, -1, dtype=np.int32)
    spread = np.repeat(np.asarray(loss)[:, None], ROWS, axis=1)
    evidence = Evidence(
        round=3, level="global", set="test", run=numbers, client=whole, loss=spread, margin=-spread,
        correct=np.where(spread < 0, 1.0, 0.0),
    )  # fmt: skip
    # rows differ, so that their mean is what counts
    offsets = np.arange(ROWS) - (ROWS - 1) / 2
    signals = tuple(
        SignalEvidence(
            round=3, level="global", name=f"{start}.{client}", run=numbers, client=whole, set="test",
            values=np.asarray(table)[:, client, None] + (0 if "participations" in start else offsets),
        )
        for start, table in values.items() for client in range(np.asarray(table).shape[1])
    )  # fmt: skip
    models = Models(runs=runs, round=np.array([3]), client=np.array([-1]), of=np.zeros((1, 1), dtype=np.int64))
    test = SetEvidence(models=models, blocks=(evidence,), targets=np.zeros(ROWS, dtype=np.int64), signals=signals)
    view = make_view(np.zeros((runs, 1)), coins(runs, 1, rng), round_number=round_number, client_in=client_in)
    return View(**{**vars(view), "level": "global", "sets": {"test": test}})


def rows(view: View, **fields: Any) -> dict[tuple[str, str, str, str], Reading]:
    found = ClientValues(**fields).tests(view)
    assert all(run_number is None for run_number, _ in found)
    return {(r.metric, r.subject, r.labels.text("valuation"), r.labels.text("statistic")): r for _, r in found}


def draws(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(RUNS, CLIENTS)), coins(RUNS, CLIENTS, rng)


def test_values_are_means_over_the_runs_with_the_client() -> None:
    values, client_in = draws()
    found = rows(view_of({"client_value.exact.loss": values}, client_in))
    for client in range(CLIENTS):
        reading = found["client_value", f"client {client}", "exact", "loss"]
        own = values[client_in[:, client], client]
        assert reading.value == pytest.approx(own.mean())
        assert (reading.low, reading.high) == pytest.approx(student_mean(own))
        assert reading.n == client_in[:, client].sum()
    mean = found["client_value", "", "exact", "loss"]
    assert mean.value == pytest.approx(np.mean([values[client_in[:, k], k].mean() for k in range(CLIENTS)]))
    assert mean.n == CLIENTS
    assert mean.low < mean.value < mean.high


def test_twins_count_once() -> None:
    values, client_in = draws()
    view = view_of({"client_value.exact.loss": np.repeat(values, 2, axis=0)}, np.repeat(client_in, 2, axis=0))
    twins = replace(view, audit=replace(view.audit, coin_row=np.repeat(np.arange(RUNS), 2)))
    found, once = rows(twins), rows(view_of({"client_value.exact.loss": values}, client_in))
    for subject in ("client 2", ""):
        one, other = (each["client_value", subject, "exact", "loss"] for each in (found, once))
        assert (one.value, one.low, one.high, one.n) == pytest.approx((other.value, other.low, other.high, other.n))


def test_values_per_participation_divide_by_the_rounds() -> None:
    values, _ = draws()
    participations = np.tile(np.array([1.0, 2, 3, 4, 5, 0]), (RUNS, 1))
    table = {
        "client_value.gtg.accuracy": values,
        "client_value.completed.accuracy": values,
        "client_value.participations": participations,
    }
    found = rows(view_of(table, None))
    for client in range(5):
        per_participation = found["client_value_per_participation", f"client {client}", "gtg", "accuracy"]
        assert per_participation.value == pytest.approx(values[:, client].mean() / (client + 1))
    never = found["client_value_per_participation", "client 5", "gtg", "accuracy"]
    assert (np.isnan(never.value), never.n) == (True, 0)
    assert ("client_value_per_participation", "client 0", "completed", "accuracy") not in found
    assert ("client_value", "client 0", "completed", "accuracy") in found


def test_diverged_runs_do_not_count_and_one_has_no_interval() -> None:
    values, _ = draws()
    values[3] = np.nan
    found = rows(view_of({"client_value.exact.loss": values}, None))
    reading = found["client_value", "client 0", "exact", "loss"]
    assert reading.n == RUNS - 1
    assert reading.value == pytest.approx(np.nanmean(values[:, 0]))
    one = rows(view_of({"client_value.exact.loss": values[:1]}, None))
    assert all(np.isnan([r.low, r.high]).all() for r in one.values())
    nothing = rows(view_of({"client_value.exact.loss": np.full((4, 2), np.nan)}, None))
    assert [r.n for r in nothing.values()] == [0, 0]


def test_agreement_is_with_the_gain_of_utility() -> None:
    rng = np.random.default_rng(3)
    client_in, worth = coins(RUNS, CLIENTS, rng), np.linspace(-2, 2, CLIENTS)
    loss = -(client_in @ worth) + 0.1 * rng.normal(size=RUNS)  # a worthy client lowers the loss
    table = {
        "client_value.exact.loss": np.tile(worth, (RUNS, 1)) + 0.1 * rng.normal(size=(RUNS, CLIENTS)),
        "fed_influence.diagonal.loss": -np.tile(worth, (RUNS, 1)),
    }
    found = rows(view_of(table, client_in, loss), signals=("client_value", "fed_influence"))
    right = found["client_agreement", "", "exact", "loss"]
    wrong = found["client_agreement", "", "fed_influence_diagonal", "loss"]
    assert right.value > 0.5
    assert wrong.value < -0.5
    assert (right.n, wrong.n) == (CLIENTS, CLIENTS)
    assert found["client_agreement.p", "", "exact", "loss"].value < 0.1
    assert found["client_reliability", "", "exact", "loss"].value > 0.9
    assert found["client_reliability", "", "retraining", "loss"].value > 0.3


def test_without_coins_or_with_few_runs_there_is_no_agreement() -> None:
    values, client_in = draws()
    for view in (
        view_of({"client_value.exact.loss": values}, None),
        view_of({"client_value.exact.loss": values[:6]}, client_in[:6]),
        view_of({"client_value.exact.loss": values}, client_in, round_number=3),
        view_of({"client_value.exact.loss": values[:, :3]}, client_in[:, :3]),
    ):
        found = rows(view)
        assert found
        assert not any(metric.startswith("client_agreement") for metric, *_ in found)


def test_other_places_and_the_initial_model_have_no_rows() -> None:
    view = view_of({"client_value.exact.loss": draws()[0]}, None)
    assert not rows(View(**{**vars(view), "level": "local"}))
    assert not rows(View(**{**vars(view), "round": 0}))
    assert not rows(View(**{**vars(view), "sets": {}}))


def test_the_signal_must_be_there() -> None:
    with pytest.raises(ScenarioError, match=r"client_values reads the signal client_value.*add \{kind: client_value\}"):
        tiny(estimators=[{"kind": "client_values"}])
    with pytest.raises(ScenarioError, match="fed_influence"):
        tiny(
            signals=[{"kind": "client_value"}],
            estimators=[{"kind": "client_values", "signals": ["client_value", "fed_influence"]}],
        )
    with pytest.raises(ComponentError, match="one signal or both"):
        ClientValues(signals=())


def test_runs_do_not_depend_on_how_they_are_grouped(tmp_path: Path) -> None:
    """And values of all clients sum to what the rounds added."""
    settings: dict[str, Any] = {
        "runs": 8, "rounds": 2, "clients": 5, "bootstrap": 20, "leave_out": {"clients": "all"},
        "observe": {"every": 1, "levels": ["global"]}, "sampler": {"kind": "everyone"},
        "signals": [{"kind": "client_value", "methods": ["exact", "gtg"]}, {"kind": "fed_influence"}],
        "estimators": [{"kind": "client_values", "signals": ["client_value", "fed_influence"]}],
    }  # fmt: skip
    tables = []
    for number, executor in enumerate(("stacked", "one_by_one")):
        folder = run(tiny(**settings, speed={"executor": executor}), out=tmp_path / str(number))
        table = pd.read_parquet(folder / "measurements.parquet")
        tables.append(table[table.source == "client_values"].reset_index(drop=True))
    first, second = tables
    np.testing.assert_allclose(first.value, second.value, atol=1e-5)
    assert set(first[first.scope == "round"]["round"]) == {1, 2}
    summary = first[first.scope == "summary"]
    assert {"client_value", "client_value_per_participation"} <= set(summary.metric)
    assert {"exact", "gtg", "fed_influence_diagonal"} <= set(summary.valuation.dropna())
