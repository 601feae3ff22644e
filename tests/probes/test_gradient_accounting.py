"""Tests of `fedmem/probes/gradient_accounting.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError
from fedmem.probes import gradient_accounting
from fedmem.probes.gradient_accounting import GradientAccounting
from tests.lab import Lab, federation, measured, parameters


def linear_lab() -> Lab:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return Lab(federation=replace(federation(), model=model, initial=parameters(model)))


def summed_by_hand(lab: Lab, about: Transition, rows: IntArray) -> FloatArray:
    """Σ (p − y) [x, 1]ᵀ of softmax regression."""
    weight, bias = (about.before[f"1.{name}"].double().numpy() for name in ("weight", "bias"))
    x = lab.federation.store.inputs[rows].reshape(len(rows), -1).astype(np.float64)
    logits = x @ weight.T + bias
    error = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    error -= np.eye(10)[lab.federation.store.targets[rows]]
    whole: FloatArray = error.T @ np.column_stack([x, np.ones(len(x))])
    return whole


def by_labels(found: Any) -> dict[tuple[int, int, str, str, Any, Any], Reading]:
    return {
        (t.run, t.client, r.metric, r.labels.text("kind"), r.labels.get("coin"), r.labels.get("layer")): r
        for t, r in found
    }


def check_closed_form(level: str, reference: str | None) -> None:
    lab = linear_lab()
    local = lab.local()
    transitions = local if level == "local" else lab.aggregated(local)
    audit, start = lab.federation.audit, lab.federation.audit_start
    found = by_labels(GradientAccounting(reference=reference).observe(transitions, lab))
    seen = 0
    for about in transitions:
        clients = [about.client] if level == "local" else list(about.clients)
        for coin in (None, "out"):
            side = np.isin(audit.owner, clients) & (audit.is_in[about.run] == (coin is None))
            rows = start + np.flatnonzero(side & (audit.kind == "noise"))
            base = np.concatenate([lab.federation.base[client] for client in clients])
            others = base if reference is None else start + np.flatnonzero(side & (audit.kind == reference))
            for layer in ("1", None):
                ratio, cosine = (
                    found[about.run, about.client, metric, "noise", coin, layer].value
                    for metric in ("gradient_ratio", "gradient_cosine")
                )
                if not len(rows) or not len(others):
                    assert math.isnan(ratio)
                    assert math.isnan(cosine)
                    continue
                first, second = (summed_by_hand(lab, about, part) for part in (rows, others))
                lengths = np.linalg.norm(first), np.linalg.norm(second)
                assert ratio == pytest.approx(lengths[0] / lengths[1], rel=1e-9)
                assert cosine == pytest.approx((first * second).sum() / np.prod(lengths), rel=1e-9)
                seen += 1
    assert seen > 3


@pytest.mark.parametrize("level", ["local", "global"])
@pytest.mark.parametrize("reference", [None, "typical"])
def test_values_are_closed_forms_of_softmax_regression(level: str, reference: str | None) -> None:
    check_closed_form(level, reference)


@pytest.mark.parametrize("sign", [-1.0, 0.5])
def test_wrong_sign_or_normaliser_is_found(sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradient_accounting._compare
    monkeypatch.setattr(
        gradient_accounting,
        "_compare",
        lambda first, other: {
            layer: (ratio * abs(sign), cosine * sign) for layer, (ratio, cosine) in right(first, other).items()
        },
    )
    with pytest.raises(AssertionError):
        check_closed_form("local", None)


def with_rows(lab: Lab, *, opposed: bool) -> Lab:
    """The lab with the same inputs in both kinds at the aggregate; with opposed labels of two classes, if asked for."""
    built = lab.federation
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    store, start = built.store, built.audit_start
    inputs, targets = store.inputs.copy(), store.targets % 2
    inputs[start + 6 : start + 9] = inputs[start : start + 3]
    targets[start : start + 9] = 0
    if opposed:
        targets[start + 6 : start + 9] = 1
    kind = np.array(["typical"] * 3 + ["other"] * 3 + ["noise"] * 3)
    is_in = np.tile(np.array([True] * 3 + [False] * 3 + [True] * 3), (4, 1))
    audit = replace(built.audit, kind=kind, is_in=is_in)
    initial = {name: torch.zeros_like(value) for name, value in parameters(model).items()}
    store = replace(store, inputs=inputs, targets=targets)
    return Lab(federation=replace(built, model=model, initial=initial, audit=audit, store=store, num_classes=2))


@pytest.mark.parametrize(("opposed", "expected"), [(False, 1.0), (True, -1.0)])
def test_equal_kinds_agree_and_opposed_labels_cancel(opposed: bool, expected: float) -> None:
    lab = with_rows(linear_lab(), opposed=opposed)
    found = by_labels(GradientAccounting(reference="typical").observe(lab.aggregated(lab.local()), lab))
    for layer in ("1", None):
        assert found[0, -1, "gradient_ratio", "noise", None, layer].value == pytest.approx(1.0)
        assert found[0, -1, "gradient_cosine", "noise", None, layer].value == pytest.approx(expected)
    assert math.isnan(found[0, -1, "gradient_ratio", "noise", "out", "1"].value), "no example is out"
    assert math.isnan(found[0, -1, "gradient_ratio", "other", None, "1"].value), "no example is in"
    assert found[0, -1, "gradient_ratio", "other", None, "1"].n == 0


def test_examples_outside_their_window_do_not_count() -> None:
    lab = linear_lab()
    late = replace(lab.federation.audit, start=np.full(9, 3, dtype=np.int32))
    lab.federation = replace(lab.federation, audit=late)
    found = GradientAccounting().observe(lab.local(), lab)
    assert {reading.n for _, reading in found} == {0}


def test_means_of_ratios_are_geometric() -> None:
    lab = linear_lab()
    found = GradientAccounting().observe(lab.local(), lab)
    rows = measured(found)
    summary = GradientAccounting().summarise(rows, 0)
    values = [
        reading.value
        for _, reading in found
        if (reading.metric, reading.labels.get("layer"), reading.labels.get("coin")) == ("gradient_ratio", "1", None)
        and reading.labels.get("kind") == "typical"
        and not math.isnan(reading.value)
    ]
    (mean,) = (
        row.reading
        for row in summary
        if (row.reading.metric, row.reading.subject, row.round) == ("gradient_ratio", "typical", None)
        and (row.reading.labels.get("layer"), row.reading.labels.get("coin")) == ("1", None)
    )
    assert mean.value == pytest.approx(float(np.exp(np.mean(np.log(values)))))
    assert mean.low < mean.value < mean.high
    metrics = {row.reading.metric for row in summary}
    assert metrics == {"gradient_ratio", "gradient_cosine", "gradient_cosine.difference"}


def test_initial_model_and_later_runs_are_not_read() -> None:
    lab = linear_lab()
    local = lab.local()
    assert not GradientAccounting().observe([replace(one, round=0) for one in local], lab)
    assert {t.run for t, _ in GradientAccounting(runs=1).observe(local, lab)} == {0}


def test_unknown_reference_is_refused() -> None:
    lab = linear_lab()
    with pytest.raises(ComponentError, match=r"is no kind of audit example; use one of typical, noise"):
        GradientAccounting(reference="tipical").observe(lab.local(), lab)
