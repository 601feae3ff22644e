"""Tests of `fedmem/probes/update_survival.py`: what rules do with the updates of a round, in real runs and by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fedmem
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT, Measurement, Reading
from fedmem.probes._clusters import mean_interval
from fedmem.probes.update_survival import ATYPICAL, REST, UpdateSurvival
from tests.lab import Lab, measured, transition
from tests.tiny import tiny

WEIGHTS = 12


@dataclass
class Cohort:
    """The context of made messages: `sent` (K, P) of run 0."""

    sent: Sequence[Transition]
    federation: Any = None
    client: Any = None

    def senders(self, aggregate: Transition) -> list[Transition]:
        return [one for one in self.sent if one.run == aggregate.run and one.client in aggregate.clients]


def message(vector: Any, client: int, run: int = 0) -> Transition:
    """A message with one weight vector, a counter, and a layer that stays with the client."""
    before = {"w": torch.zeros(WEIGHTS), "own": torch.zeros(2), "count": torch.tensor(3)}
    vector = torch.as_tensor(np.asarray(vector), dtype=torch.float32)
    after = {"w": vector, "own": torch.full((2,), 100.0 + client), "count": torch.tensor(4)}
    return transition(run, 2, client, before, after, 10)


def cohort(updates: Any, is_in: Any = None) -> Any:
    """The messages of K clients, of which each has two examples of a kind, under coins (R, 2 K)."""
    rows = np.asarray(updates)
    coins = np.zeros((1, 2 * len(rows)), dtype=bool) if is_in is None else np.asarray(is_in)
    owner = np.repeat(np.arange(len(rows)), 2)
    audit = SimpleNamespace(
        holds=lambda clients: np.asarray(clients)[:, None] == owner,
        is_active=lambda number: np.arange(len(owner)) != 1,  # the second example of client 0 is not in use yet
        kind=np.full(len(owner), "noise"),
        kinds=("noise",),
        is_in=coins,
    )
    federation = SimpleNamespace(audit=audit, personal_names=lambda client: ("own",))
    return Cohort([message(row, k) for k, row in enumerate(rows)], federation)


def read(step: Any, context: Any) -> dict[tuple[str, str, str], Reading]:
    """Readings of the aggregate, by metric, subject and the statistic or kind."""
    one = message(step, NO_CLIENT)
    one = replace(one, level="global", clients=tuple(t.client for t in context.sent))
    pairs = UpdateSurvival().observe([one], context)
    assert all(about is one for about, _ in pairs)
    keys = [(r.metric, r.subject, r.labels.text("statistic") or r.labels.text("kind")) for _, r in pairs]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, (reading for _, reading in pairs), strict=True))


def updates_of(clients: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((clients, WEIGHTS)) * np.arange(1, clients + 1)[:, None]


def test_weights_alone_count() -> None:
    """A layer that stays with clients, and a counter, are no part of the step."""
    updates = updates_of()
    found = read(updates.mean(axis=0), cohort(updates))
    for client in range(6):
        assert found["survival", f"client {client}", ""].value == pytest.approx(1, abs=1e-5)
    assert found["unexplained_share", "", ""].value == pytest.approx(0, abs=1e-9)
    assert found["unexplained_share", "", ""].n == 6


def test_equal_weights_have_no_correlation_and_no_gap() -> None:
    updates = updates_of()
    found = read(updates.mean(axis=0), cohort(updates))
    for statistic in ("norm", "atypicality"):
        reading = found["survival_correlation", "", statistic]
        assert (math.isnan(reading.value), reading.n) == (True, 0)
    assert found["survival_gap", "", ""].value == pytest.approx(0, abs=1e-5)
    assert found["survival", "", ATYPICAL].value == pytest.approx(1, abs=1e-5)


def test_clipped_updates_survive_less_the_longer_they_are() -> None:
    updates = updates_of()
    lengths = np.linalg.norm(updates, axis=1)
    step = (updates / lengths[:, None]).mean(axis=0)
    found = read(step, cohort(updates))
    assert found["survival_correlation", "", "norm"].value == pytest.approx(-1)
    assert found["survival_correlation", "", "norm"].n == 6
    for client, length in enumerate(lengths):
        assert found["survival", f"client {client}", ""].value == pytest.approx(1 / length, rel=1e-4)


def test_a_chosen_typical_update_suppresses_atypical_ones() -> None:
    rng = np.random.default_rng(1)
    updates = np.ones(WEIGHTS) + 0.2 * rng.standard_normal((6, WEIGHTS))
    updates[4:] = rng.standard_normal((2, WEIGHTS))
    found = read(updates[1], cohort(updates))
    assert found["survival", "client 1", ""].value == pytest.approx(6, abs=1e-4)
    assert found["survival", "", ATYPICAL].value == pytest.approx(0, abs=1e-4)
    assert found["survival", "", REST].value == pytest.approx(1.5, abs=1e-4)
    assert found["survival_gap", "", ""].value == pytest.approx(-1.5, abs=1e-4)
    assert found["survival_correlation", "", "atypicality"].value < 0


def test_single_clients_and_diverged_steps_are_decided() -> None:
    alone = read(updates_of(1)[0], cohort(updates_of(1)))
    assert alone["survival", "client 0", ""].value == pytest.approx(1)
    assert alone["survival_along", "client 0", ""].value == pytest.approx(1)
    undefined = ("survival_gap", "", ""), ("survival_correlation", "", "norm"), ("survival", "", ATYPICAL)
    broken = read(np.full(WEIGHTS, np.nan), cohort(updates_of()))
    for reading in (*(alone[key] for key in undefined), *broken.values()):
        assert (math.isnan(reading.value), reading.n) == (True, 0)
    assert UpdateSurvival().observe([replace(message(np.ones(WEIGHTS), NO_CLIENT), level="global")], cohort([])) == []
    start = replace(message(np.ones(WEIGHTS), NO_CLIENT), level="global", round=0)
    assert UpdateSurvival().observe([start], cohort([])) == ()


def test_a_message_that_is_not_finite_does_not_count() -> None:
    updates = updates_of()
    updates[2, 3] = np.inf
    context = cohort(updates)
    found = read(np.delete(updates, 2, axis=0).mean(axis=0), context)
    assert math.isnan(found["survival", "client 2", ""].value)
    assert found["survival", "client 3", ""].value == pytest.approx(1, abs=1e-5)
    local = {(r.metric, r.subject): r for _, r in UpdateSurvival().observe(context.sent, context)}
    for metric in ("update_length", "update_atypicality"):
        assert (math.isnan(local[metric, "client 2"].value), local[metric, "client 2"].n) == (True, 0)
        assert math.isfinite(local[metric, "client 3"].value)


def test_local_readings_are_of_the_shared_weights() -> None:
    context = cohort([[3.0, 4.0, *[0.0] * 10], [1.0, *[0.0] * 11]])
    found = {(r.metric, t.client): r.value for t, r in UpdateSurvival().observe(context.sent, context)}
    assert found["update_length", 0] == pytest.approx(5)
    assert found["update_atypicality", 0] == found["update_atypicality", 1] == pytest.approx(0.4)


def test_shares_in_are_of_own_active_examples() -> None:
    coins = np.array([[True, False, True, False, False, False]])
    found = read(np.ones(WEIGHTS), cohort(updates_of(3), coins))
    shares = [found["survival", f"client {k}", "noise"].labels.number("in_share") for k in range(3)]
    assert shares == [1.0, 0.5, 0.0]
    others = read(np.ones(WEIGHTS), cohort(updates_of(3), ~coins))
    assert others["survival", "client 0", "noise"].labels.number("in_share") == 0


def rows_of(values: Mapping[tuple[int, int, str], float], metric: str = "survival") -> list[Measurement]:
    """Measurements of (run, round, subject)."""
    return [
        Measurement(
            run=run,
            round=number,
            level="global",
            client=-1,
            source="probe",
            reading=Reading(metric=metric, value=value, subject=subject, n=int(not math.isnan(value))),
        )
        for (run, number, subject), value in values.items()
    ]


def test_summary_is_over_runs_and_rounds() -> None:
    values = {(r, t, f"client {k}"): 10.0 * r + t + k / 10 for r in range(3) for t in (1, 2) for k in range(2)}
    values[0, 1, "client 0"] = math.nan
    found = {(m.round, m.reading.subject): m.reading for m in UpdateSurvival().summarise(rows_of(values), 0)}
    assert set(found) == {(t, who) for t in (1, 2, None) for who in ("client 0", "client 1", "")}
    of_one = np.array([values[r, t, "client 1"] for t in (1, 2) for r in range(3)])
    low, high = mean_interval(of_one, [0, 1, 2] * 2)
    row = found[None, "client 1"]
    assert (row.value, row.low, row.high, row.n) == pytest.approx((of_one.mean(), low, high, 6))
    kept = [value for value in values.values() if not math.isnan(value)]
    assert (found[None, ""].value, found[None, ""].n) == pytest.approx((np.mean(kept), 11))
    assert (found[1, "client 0"].value, found[1, "client 0"].n) == pytest.approx((16, 2))
    nothing = UpdateSurvival().summarise(rows_of({(0, 1, ""): math.nan}, "survival_correlation"), 0)
    assert {(math.isnan(m.reading.value), m.reading.n) for m in nothing} == {(True, 0)}


def test_a_summary_does_not_leave_the_range() -> None:
    rows = rows_of({(0, 1, ""): 1.0, (1, 1, ""): 1.0, (2, 1, ""): 0.4}, "survival_correlation")
    assert {m.reading.high for m in UpdateSurvival().summarise(rows, 0)} == {1.0}


def measurements_of(settings: dict[str, Any], out: Path) -> pd.DataFrame:
    """What a tiny run of this strategy measured."""
    scenario = tiny(
        probes=[{"kind": "update_survival"}], observe={"every": 1, "levels": ["local", "global"]}, **settings
    )
    return fedmem.read(fedmem.run(scenario, out=out)).measurements


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_runs_of_fedavg_have_their_weights(weighting: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": {"kind": "fedavg", "weighting": weighting}, "rounds": 2}
    settings["partition"] = {"kind": "quantity_skew"}
    rows = measurements_of(settings, tmp_path)
    survival = rows[(rows.metric == "survival") & (rows.scope == "run") & rows.subject.str.startswith("client")]
    survival = survival[survival.kind == ""].assign(client=lambda t: t.subject.str.split().str[1].astype(int))
    sent = fedmem.read(next(tmp_path.glob("tiny/*"))).participation
    merged = survival.merge(sent, on=["run", "round", "client"])
    assert len(merged) == len(survival) == 4 * 2 * 3
    total = merged.groupby(["run", "round"]).num_examples.transform("sum")
    expected = 3 * merged.num_examples / total if weighting == "size" else pd.Series(1.0, merged.index)
    assert merged.value.to_numpy() == pytest.approx(expected.to_numpy(), abs=2e-3)
    assert expected.std() > 0.05 or weighting == "uniform"
    correlations = rows[(rows.metric == "survival_correlation") & (rows.scope == "summary")]
    assert (correlations.n.to_numpy() == 0).all() == (weighting == "uniform")
    assert rows[rows.metric == "unexplained_share"].value.max() < 1e-6


def test_krum_takes_one_and_momentum_is_unexplained(tmp_path: Path) -> None:
    rows = measurements_of({"strategy": {"kind": "krum", "f": 0}, "rounds": 2}, tmp_path)
    survival = rows[(rows.metric == "survival") & (rows.scope == "run") & (rows.subject != "") & (rows.kind == "")]
    for _, of_round in survival.groupby(["run", "round"]):
        assert sorted(of_round.value) == pytest.approx([0, 0, 3], abs=2e-3)
    rows = measurements_of({"strategy": {"kind": "fedavgm", "momentum": 0.9}, "rounds": 2}, tmp_path / "momentum")
    shares = rows[(rows.metric == "unexplained_share") & (rows.scope == "run")]
    assert shares[shares["round"] == 1].value.max() < 1e-6
    assert shares[shares["round"] == 2].value.min() > 0.01


def test_an_aggregate_that_owners_complete_is_read_once(tmp_path: Path) -> None:
    """With personal layers, each owner is shown an aggregate of its own. The step is that of the shared layers."""
    settings: dict[str, Any] = {"strategy": {"kind": "fedavg", "weighting": "uniform"}, "rounds": 2}
    rows = measurements_of({**settings, "client": {"kind": "fedper", "lr": 0.2, "batch_size": 8}}, tmp_path)
    runs = rows[(rows.scope == "run") & (rows.level == "global")]
    assert (runs.client == NO_CLIENT).all()
    assert not runs.duplicated(["run", "round", "metric", "subject", "statistic", "kind"]).any()
    survival = runs[(runs.metric == "survival") & (runs.subject != "")]
    assert survival.value.to_numpy() == pytest.approx(np.ones(len(survival)), abs=2e-3)
    assert len(runs[runs.metric == "unexplained_share"]) == 4 * 2


def test_gain_finds_a_rule_that_reads_coins() -> None:
    """Survival that rises with the share in, and no effect of clients that differ anyway."""
    lab, rng = Lab(), np.random.default_rng(0)
    pairs = UpdateSurvival().observe(lab.aggregated(lab.local(runs=(0, 1, 2, 3))), lab)
    rows = []
    for one in measured(pairs):
        if one.reading.labels.get("kind") is not None:
            owner = int(one.reading.subject.split()[1])
            value = 5 * owner + 2 * one.reading.labels.number("in_share") + 0.01 * rng.standard_normal()
            rows.append(replace(one, reading=replace(one.reading, value=value)))
    found = {(m.round, m.reading.subject): m.reading for m in UpdateSurvival().summarise(rows, 0)}
    assert set(found) == {(2, "typical"), (2, "noise"), (None, "typical"), (None, "noise")}
    assert {reading.metric for reading in found.values()} == {"survival_gain"}
    gain = found[None, "noise"]
    assert gain.value == pytest.approx(2, abs=0.05)
    assert gain.low < 2 < gain.high
    assert gain.n == 12
    assert math.isnan(found[None, "typical"].value)  # of two examples of a client, always one is in
    assert found[None, "typical"].n == 0
