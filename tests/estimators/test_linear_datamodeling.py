"""Tests of `fedmem/estimators/linear_datamodeling.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import SignalEvidence
from fedmem.contracts.measurement import Reading
from fedmem.contracts.series import Series
from fedmem.estimators.linear_datamodeling import LinearDatamodeling
from tests.banks import coins, make_view
from tests.tiny import tiny

RUNS, N, OWN = 64, 12, 3.0


def planted_view(seed: int, *, sign: float = 1.0, noise: float = 1.0, twins: int = 1) -> View:
    """Examples 0 to 3 and test rows 0 to 3 are targets; margins are Σ τ · coins and noise; τ_ii is large."""
    rng = np.random.default_rng(seed)
    rows = RUNS // twins
    is_in = np.tile(coins(rows, N, rng), (twins, 1))
    tau = {kind: rng.normal(size=(N, N)) for kind in ("audit", "test")}
    tau["audit"] += OWN * np.eye(N)
    margins = {kind: is_in @ each.T + noise * rng.normal(size=(RUNS, N)) for kind, each in tau.items()}
    view = make_view(margins["audit"], is_in, test=margins["test"], round_number=None, kind=["typical"] * N)
    signals = {f"made_on.{kind}.{i}": sign * np.broadcast_to(tau[kind][i], (RUNS, N)) for kind in tau for i in range(4)}
    return _with(view, signals, np.tile(np.arange(rows), twins))


def _with(view: View, signals: dict[str, FloatArray], coin_row: IntArray) -> View:
    blocks = {
        name: {
            9: [
                SignalEvidence(
                    round=9,
                    level="global",
                    name=name,
                    run=np.arange(RUNS, dtype=np.int32),
                    client=np.full(RUNS, -1, np.int32),
                    values=np.array(values),
                    set="audit",
                    rows=None,
                )
            ]
        }
        for name, values in signals.items()
    }
    series = Series(
        rounds=np.array([9]),
        client=np.full((1, N), -1),
        observed=np.ones((1, 1, N), dtype=bool),
        participated=None,
        is_hidden=np.zeros((RUNS, N), dtype=bool),
        kept={},
        aggregates={},
        signals=blocks,
    )
    shuffles = np.stack([np.random.default_rng(i).permutation(RUNS) for i in range(40)])
    audit = replace(view.audit, coin_row=coin_row) if len(np.unique(coin_row)) < RUNS else view.audit
    return replace(
        view, series=series, audit=audit, redeals=replace(view.redeals, shuffles=shuffles, coin_row=audit.coin_row)
    )


def readings(view: View) -> dict[tuple[str, str, str], Reading]:
    found = [reading for _, reading in LinearDatamodeling().tests(view)]
    return {(r.metric, r.labels.text("of"), r.labels.text("targets")): r for r in found}


def test_true_influences_reach_the_ceiling_and_flipped_do_not() -> None:
    view = planted_view(0, twins=2, noise=2.0)
    found = readings(view)
    for targets in ("audit", "test"):
        value, ceiling = found["lds", "made", targets], found["lds.ceiling", "", targets]
        assert value.value == pytest.approx(ceiling.value, abs=0.08)
        assert value.low < ceiling.value < value.high
        assert value.n == ceiling.n == 4
        # influences estimated from half of the runs are noisy
        assert 0 < found["lds", "datamodel", targets].value < value.value
    assert found["lds.p", "made", "audit"].value < 0.1
    flipped = readings(planted_view(0, sign=-1.0, twins=2, noise=2.0))
    assert flipped["lds", "made", "test"].value == pytest.approx(-found["lds", "made", "test"].value)
    assert flipped["lds", "datamodel", "test"].value == pytest.approx(found["lds", "datamodel", "test"].value)


def test_own_inclusion_is_left_out_where_it_says_so() -> None:
    view = planted_view(1)
    series = view.series
    assert series is not None
    # a signal that knows nothing but the influence of each target on itself
    own = {
        f"made_on.audit.{i}": np.broadcast_to(np.where(np.arange(N) == i, 1.0, 0.0), (RUNS, N)).copy() for i in range(4)
    }
    found = readings(_with(view, own, np.arange(RUNS)))
    assert found["lds", "made", "audit"].value > 0.3
    assert ("lds", "made", "audit without itself") not in found
    assert ("lds", "made", "test") not in found


def test_the_group_of_a_target_is_left_out_with_it() -> None:
    rng = np.random.default_rng(4)
    groups = np.arange(N) // 2
    is_in = coins(RUNS, N // 2, rng)[:, groups]
    # each example changes nothing but its own margin
    view = make_view(OWN * is_in + rng.normal(size=(RUNS, N)), is_in, round_number=None, kind=["typical"] * N)
    view = replace(view, audit=replace(view.audit, coin_group=groups))
    signals = {f"made_on.audit.{i}": np.ones((RUNS, N)) * (groups == groups[i]) for i in range(4)}
    found = readings(_with(view, signals, np.arange(RUNS)))
    assert found["lds", "made", "audit"].value > 0.6
    assert ("lds", "made", "audit without itself") not in found
    assert abs(found["lds", "datamodel", "audit without itself"].value) < 0.3


def test_other_views_have_no_rows() -> None:
    view = planted_view(0)
    assert not LinearDatamodeling().tests(replace(view, round=9))
    assert not LinearDatamodeling().tests(replace(view, series=None))
    assert not LinearDatamodeling().estimate(view)
    models = view.sets["audit"].models
    personal = replace(view.sets["audit"], models=replace(models, client=np.zeros(1, np.int64)))
    assert not LinearDatamodeling().tests(replace(view, sets={**view.sets, "audit": personal}))
    assert not LinearDatamodeling().tests(_with(view, {}, np.arange(RUNS)))


@pytest.mark.slow
def test_runs_have_scores_at_owners_and_aggregate(tmp_path: Path) -> None:
    scenario = tiny(
        runs=16,
        rounds=2,
        bootstrap=20,
        model={"kind": "logistic"},
        signals=[{"kind": "tracin", "targets": 8}],
        estimators=[{"kind": "linear_datamodeling"}],
    )
    rows = fedmem.read(fedmem.run(scenario, out=tmp_path)).measurements
    rows = rows[rows.metric == "lds"]
    assert set(rows.level) == {"local", "global"}
    assert set(rows.of) == {"tracin", "datamodel"}
    assert set(rows.targets) >= {"audit", "test"}
    whole = rows[(rows.level == "global") & (rows.targets == "test")]
    assert whole.n.tolist() == [4, 4]
    assert ((rows.low <= rows.value) & (rows.value <= rows.high)).all()
