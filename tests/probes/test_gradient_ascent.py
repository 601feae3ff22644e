"""Tests of `fedmem/probes/gradient_ascent.py`: a loss that is raised, and pulled back where the example is held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.probe import probe_declaration
from fedmem.probes import gradient_ascent
from fedmem.probes.gradient_ascent import GradientAscent
from tests.observation.replay_helpers import looked_at
from tests.probes.dishonest_helpers import BRIEF, measured, values
from tests.tiny import tiny

LR, RADIUS = 0.3, 0.5
PROBE: dict[str, Any] = {"kind": "gradient_ascent", "runs": 4, "victims": 4}
WHOLE = {"kind": "sgd", "lr": LR, "steps": 1, "batch_size": 500}


def gradient(context: Any, params: Params, inputs: Any, targets: Any) -> tuple[float, Params]:
    """The mean loss of rows, and its gradient, in float64."""
    leaves = {name: value.double().requires_grad_() for name, value in params.items()}
    outputs = functional_call(context.federation.model, leaves, (torch.from_numpy(inputs).double(),))
    loss = functional.cross_entropy(outputs, torch.from_numpy(targets))
    return float(loss.detach()), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_one_step_of_logistic_regression_has_a_closed_form() -> None:
    """Ascent along the example's gradient, one step of descent on all rows of whoever is asked."""
    seen: list[str] = []

    def look(transition: Transition, context: Any) -> None:
        if transition.run or transition.round != 1:
            return
        federation, senders = context.federation, context.local
        found = GradientAscent(radius=RADIUS, max_examples=2).observe([t for t in senders if t.run == 0], context)
        for sender, reading in found:
            if reading.labels.get("statistic") != "ascent":
                continue
            subject, examples = int(reading.subject), federation.audit.examples
            about = examples.inputs[[subject]], examples.targets[[subject]]
            _, up = gradient(context, sender.before, *about)
            length = sum(float(part.square().sum()) for part in up.values()) ** 0.5
            start = {name: value.double() + RADIUS * up[name] / length for name, value in sender.before.items()}
            rows = context.used_rows(sender.run, sender.client, sender.round)
            _, down = gradient(context, start, federation.store.inputs[rows], federation.store.targets[rows])
            after = {name: value - LR * down[name] for name, value in start.items()}
            fall = gradient(context, start, *about)[0] - gradient(context, after, *about)[0]
            assert reading.value == pytest.approx(fall, abs=5e-6)
            seen.append(reading.labels.text("place"))

    looked_at(tiny(**{**BRIEF, "model": {"kind": "logistic"}, "client": WHOLE}), look)
    assert set(seen) == {"owner", "others"}


def test_only_the_batch_undoes_an_ascent_of_linear_regression() -> None:
    """The loss ½(w x − y)² after E steps: (1 − ηλ)^E of the ascent is left along a row that is orthogonal to others."""
    rate, steps = 0.1, 5
    rows = np.eye(3) * [2.0, 1.0, 1.5]
    for held in (True, False):
        batch = rows if held else rows[1:]
        weights = RADIUS * rows[0] / np.linalg.norm(rows[0])  # labels are 0, so that the optimum is 0
        for _ in range(steps):
            weights = weights - rate * batch.T @ (batch @ weights)
        assert weights[0] / RADIUS == pytest.approx((1 - rate * 4.0) ** steps if held else 1.0)


def test_members_are_pulled_back_further_than_others() -> None:
    client = {"kind": "sgd", "lr": 0.3, "epochs": 4, "batch_size": 8}
    injections = [{"kind": "random_pattern", "per_client": 4}]
    rows = measured({**PROBE, "radius": 0.3}, client=client, injections=injections)
    for statistic, is_more in (("ascent", True), ("ascent_contrast", True), ("passive", True)):
        ins, outs = (values(rows, "loss_fall", statistic=statistic, place="owner", coin=c) for c in (None, "out"))
        assert (np.mean(ins) > np.mean(outs)) == is_more
    strangers = [values(rows, "loss_fall", statistic="ascent", place="others", coin=c) for c in (None, "out")]
    difference = [row.reading for row in rows if row.run is None and row.reading.metric == "loss_fall.difference"]
    (of_strangers,) = {
        (one.value, one.low, one.high)
        for one in difference
        if one.labels.get("statistic") == "ascent" and one.labels.get("place") == "others"
    }
    assert of_strangers[0] == pytest.approx(np.mean(strangers[0]) - np.mean(strangers[1]))
    assert of_strangers[1] <= 0 <= of_strangers[2], "in round 1 nothing depends on the coin of a row that is not held"
    (area,) = {
        one.reading.value
        for one in rows
        if one.round is None
        and one.reading.metric == "active_auc"
        and one.reading.labels.get("statistic") == "ascent"
        and one.reading.labels.get("place") == "owner"
    }
    assert area > 0.6


def test_a_fall_of_the_wrong_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gradient_ascent._losses
    monkeypatch.setattr(gradient_ascent, "_losses", lambda *arguments: -real(*arguments))
    with pytest.raises(Exception, match=r"AssertionError|assert"):
        test_one_step_of_logistic_regression_has_a_closed_form()


def test_layers_that_stay_with_clients_are_not_raised() -> None:
    def look(transition: Transition, context: Any) -> None:
        if transition.run or transition.round != 1 or transition.client != context.local[0].client:
            return
        probe = GradientAscent(max_examples=1, others=False)
        questions = list(probe._questions([t for t in context.local if t.run == 0], context))
        personal = context.federation.personal_names(context.client)
        for question, start in zip(questions, probe._raise_losses(questions, context), strict=True):
            before = question.sender.before
            assert personal
            assert all(torch.equal(start[name], before[name]) for name in personal)
            squares = sum(float((start[name] - before[name]).double().square().sum()) for name in before)
            assert squares**0.5 == pytest.approx(probe.radius, rel=1e-4)

    looked_at(tiny(**{**BRIEF, "client": {"kind": "fedper", "lr": 0.2}}), look)


def test_it_says_how_often_clients_are_asked() -> None:
    declared = probe_declaration(GradientAscent(max_examples=3))
    assert declared.replays_per_client is not None
    assert declared.replays_per_client(100) == 6
