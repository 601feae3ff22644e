"""Tests of `fedmem/probes/backdoor_success.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import TriggeredRows
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.estimation.statistics import student_mean
from fedmem.probes.backdoor_success import BackdoorSuccess, difference
from tests.lab import Lab, federation


def lab_with(target: int = 3) -> Lab:
    """A federation in which the two rows of client 1 are a backdoor of one draw."""
    whole = federation()
    audit = whole.audit
    kind = np.where((audit.kind == "typical") & (audit.owner == 1), "backdoor", audit.kind)
    is_in = audit.is_in.copy()
    is_in[:, kind == "backdoor"] = np.array([True, False, True, False])[:, None]
    clean = whole.test.inputs[whole.test.targets != target]
    rows = TriggeredRows(kind="backdoor", target=target, clean=clean, triggered=1 - clean)
    return Lab(federation=replace(whole, audit=replace(audit, kind=kind, is_in=is_in), triggers=(rows,)))


def answering(params: Params, label: int) -> Params:
    """The network with the same answer to everything."""
    bias = next(name for name in reversed(params) if name.endswith("bias"))
    changed = {name: torch.zeros_like(value) if name[0] == bias[0] else value for name, value in params.items()}
    changed[bias] = torch.nn.functional.one_hot(torch.tensor(label), 10).float()
    return changed


def test_shares_are_those_of_a_naive_loop() -> None:
    lab = lab_with()
    (rows,) = lab.federation.triggers
    local = lab.local(runs=(0, 1))
    readings = BackdoorSuccess().observe(local, lab)
    assert len(readings) == 2 * len(local)
    for t, reading in readings:
        inputs = rows.triggered if reading.metric == "backdoor_success" else rows.clean
        answers = [lab.logits([t.kept], x[None])[0, 0].argmax() == 3 for x in inputs]
        assert reading.value == pytest.approx(np.mean(answers))
        assert reading.labels.text("place") == ("owner" if t.client == 1 else "others")
        assert (reading.labels.get("coin") == "out") == (t.run == 1)


def test_a_model_that_always_answers_with_the_target_succeeds() -> None:
    lab = lab_with()

    def model(t: Transition) -> Transition:
        return replace(t, kept=answering(t.kept, 3 if t.run == 0 else 5))

    one, other, *_ = (model(t) for t in lab.aggregated(lab.local(runs=(0, 1))))
    found = {(t.run, r.metric): r.value for t, r in BackdoorSuccess().observe([one, other], lab)}
    assert found[0, "backdoor_success"] == found[0, "clean_target_rate"] == 1.0
    assert found[1, "backdoor_success"] == 0.0
    lost = replace(one, kept={name: value * float("nan") for name, value in one.kept.items()})
    assert [(np.isnan(r.value), r.n) for _, r in BackdoorSuccess().observe([lost], lab)] == [(True, 0)] * 2
    level = {name: torch.zeros_like(value) for name, value in one.kept.items()}
    assert BackdoorSuccess().observe([replace(one, kept=level)], lab)[0][1].value == 0.0, "a tie is no answer"
    assert not BackdoorSuccess().observe([replace(one, level="sum")], lab)


def test_runs_without_the_attacker_say_nothing() -> None:
    lab = lab_with()
    client_in = np.ones((4, 3), dtype=bool)
    client_in[0, 1] = False
    lab.federation = replace(lab.federation, audit=replace(lab.federation.audit, client_in=client_in))
    assert {t.run for t, _ in BackdoorSuccess().observe(lab.local(runs=(0, 1)), lab)} == {1}


def rows_of(values: FloatArray, coins: list[bool], round_number: int = 4) -> list[Measurement]:
    return [
        Measurement(
            run=run,
            round=round_number,
            level="global",
            client=-1,
            source="backdoor_success",
            reading=Reading(
                metric="backdoor_success",
                value=float(value),
                n=1,
                subject="backdoor",
                labels=Labels.of(coin="" if coin else "out"),
            ),
        )
        for run, (value, coin) in enumerate(zip(values, coins, strict=True))
    ]


def summary(measurements: list[Measurement]) -> dict[tuple[str, bool], Reading]:
    rows = BackdoorSuccess().summarise(measurements, 0)
    return {
        (row.reading.metric, row.reading.labels.get("coin") == "out"): row.reading for row in rows if row.round is None
    }


def test_summary_compares_runs_with_and_without() -> None:
    rng = np.random.default_rng(0)
    coins = [True, False] * 8
    values = np.where(coins, 0.9, 0.1) + 0.05 * rng.random(16)
    found = summary([*rows_of(values / 2, coins, 2), *rows_of(values, coins)])
    ins, outs = values[::2], values[1::2]
    assert found["backdoor_success", False].value == pytest.approx(ins.mean())
    assert (found["backdoor_success", True].low, found["backdoor_success", True].high) == pytest.approx(
        student_mean(outs)
    )
    gap = found["backdoor_success.difference", False]
    assert gap.value == pytest.approx(ins.mean() - outs.mean())
    error = np.sqrt(ins.var(ddof=1) / 8 + outs.var(ddof=1) / 8)
    assert gap.high - gap.value == pytest.approx(2.3646 * error, rel=1e-4), "t with 7 degrees of freedom"
    assert gap.labels == Labels.of(contrast="coins", minus="out")
    assert found["backdoor_success.p", False].value <= 0.004


def test_few_runs_have_no_interval_and_an_exact_p() -> None:
    found = summary(rows_of(np.array([0.9, 0.1, 0.8, 0.2]), [True, False, True, False]))
    assert np.isnan(found["backdoor_success.difference", False].low)
    p = found["backdoor_success.p", False]
    assert p.value == pytest.approx(2 / 6), "2 of 4 runs in 6 ways, both tails"
    assert p.n == 5
    alike = summary(rows_of(np.ones(16), [True, False] * 8))
    assert alike["backdoor_success.difference", False].value == 0.0
    assert np.isnan(alike["backdoor_success.difference", False].low)
    assert alike["backdoor_success.p", False].value == 1.0
    one_side = summary(rows_of(np.array([0.5, np.nan]), [True, False]))
    assert set(one_side) == {("backdoor_success", False), ("backdoor_success", True)}
    assert not BackdoorSuccess().summarise([], 0)


def test_the_interval_keeps_its_level_for_any_two_spreads() -> None:
    rng = np.random.default_rng(1)
    coins = np.arange(16) < 8
    covered, low_p = [], []
    for _ in range(300):
        values = rng.normal(size=16) * np.where(coins, 0.02, 0.2)
        gap, half = difference(values, coins)
        covered.append(abs(gap) <= half)
        low_p.append(summary(rows_of(rng.normal(size=16), coins.tolist()))["backdoor_success.p", False].value <= 0.05)
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean(low_p) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
