"""Tests of `fedmem/observation/replays.py`: local trainings that are repeated, and the training that is not touched."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.client import Outcome
from fedmem.contracts.evidence import Transition
from fedmem.contracts.replay import Replay
from fedmem.errors import ComponentError
from fedmem.observation import replays
from fedmem.training.stacked_gradient import StackedGradient
from tests.engines.seams_helpers import TOYS, same
from tests.normalised import normed
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny

DP = {"kind": "dp_sgd", "lr": 0.3, "batch_size": 6, "steps": 3}
NOISY = {"defences": [{"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 0.3, "norm": 0.5}]}
SHORT: dict[str, Any] = {
    "runs": 2,
    "rounds": 2,
    "sampler": {"kind": "uniform", "size": 2},
    "population": 0,
    "injections": [{"kind": "typical", "per_client": 2}],
    "observe": {"every": 1, "levels": ["local", "global"]},
}
BRIEF = {**SHORT, "runs": 1, "rounds": 1}

SCENARIOS: dict[str, dict[str, Any]] = {
    "momentum": {"client": {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "epochs": 2, "batch_size": 7}},
    "personal layers": {"client": {"kind": "fedper", "lr": 0.2}},
    "private": {"client": DP},
    "noise": NOISY,
    "state of the server": {"strategy": {"kind": "scaffold"}},
    "state of the client": TOYS,
    "shared batches": {"batches": "shared"},
    "messages": {"speed": {"server": "messages"}},
    "one by one": {"speed": {"executor": "one_by_one"}, **NOISY},
    "private one by one": {"client": DP, "speed": {"executor": "one_by_one"}},
    "one pooled client": {"central": "shuffled", "sampler": {"kind": "everyone"}},
}

SLOW = ("private one by one", "private")
"""Opacus and tracing take a second or two."""


def bit_equal(outcome: Outcome, transition: Transition) -> bool:
    """Whether an outcome is that of the transition to the last bit."""
    report = {name: value for name, value in transition.report.items() if name != "probability"}
    again = {name: float(value) for name, value in outcome.report.items()}
    return same([outcome.sent, outcome.kept], [transition.sent, transition.kept]) and repr(
        sorted(again.items())
    ) == repr(sorted(report.items()))


def unchanged(transition: Transition, context: Any) -> None:
    assert bit_equal(context.replay(transition), transition)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, changes in SCENARIOS.items()
    ],
)
def test_a_replay_without_changes_is_the_transition(changes: dict[str, Any]) -> None:
    looked: list[Transition] = []

    def look(transition: Transition, context: Any) -> None:
        unchanged(transition, context)
        looked.append(transition)

    looked_at(tiny(**{**SHORT, **changes}), look)
    assert looked


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_dropout_and_running_statistics_are_repeated(p: float) -> None:
    looked_at(normed(model={"p": p}, **SHORT), unchanged)


def test_noise_of_an_autoencoder_is_repeated() -> None:
    data = {"kind": "unlabelled", "dataset": {"kind": "digits"}}
    model = {"kind": "vae", "hidden": [3], "latent": 2, "samples": 4}
    looked_at(tiny(**{**BRIEF, "dataset": data, "model": model}), unchanged)


@pytest.mark.slow
def test_workers_repeat_what_they_did() -> None:
    looked_at(tiny(speed={"executor": "one_by_one", "workers": 2}, **{**SHORT, **NOISY}), unchanged)


def test_client_state_is_that_of_the_round() -> None:
    """What a client remembers after its replay is what it begins its next participation with."""
    remembered: dict[tuple[int, int], Any] = {}

    def look(transition: Transition, context: Any) -> None:
        place = transition.run, transition.client
        work = context._work.stored_work(transition.run, transition.round, transition.client)
        if place in remembered:
            assert same([work.memory_of(0)], [remembered[place]])
        remembered[place] = {n: v.clone() for n, v in context.replay(transition).memory.items()}
        assert remembered[place]

    looked_at(tiny(**{**SHORT, **TOYS, "rounds": 4}), look)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        TOYS,
        pytest.param({"client": DP}, marks=pytest.mark.slow),
        {"speed": {"executor": "one_by_one"}},
        {"strategy": {"kind": "scaffold"}},
    ],
)
def test_training_is_the_same_with_and_without_replays(changes: dict[str, Any]) -> None:
    def look(transition: Transition, context: Any) -> None:
        rows = context.used_rows(transition.run, transition.client, transition.round)
        store = len(context.federation.store)
        before = torch.get_rng_state()
        list(context.replays([(transition, Replay(without=(int(row),))) for row in rows[:3]]))
        context.replay(transition, extra={int(rows[0]): store - 1}, steps=1)
        assert torch.equal(before, torch.get_rng_state())

    watched, quiet = (looked_at(tiny(**{**SHORT, **changes}), one) for one in (look, None))
    assert same(watched.params, quiet.params)
    for one, other in zip(watched.bank.evidence, quiet.bank.evidence, strict=True):
        for part in fields(one):
            assert np.array_equal(np.asarray(getattr(one, part.name)), np.asarray(getattr(other, part.name)))
    assert watched.bank.participation == quiet.bank.participation


def test_dropout_draws_the_same_for_rows_that_stay() -> None:
    """The gradients of rows on their own, each with all others left out, add up to that of the batch."""

    def look(transition: Transition, context: Any) -> None:
        work = context._work.stored_work(transition.run, transition.round, transition.client)
        first = [int(row) for row in work.batches[0, 0] if row >= 0]
        whole = context.replay(transition, steps=1).kept
        alone = [context.replay(transition, steps=1, without=[r for r in first if r != row]).kept for row in first]
        for name, before in transition.before.items():
            total = sum((one[name] - before).double() for one in alone)
            torch.testing.assert_close(total, (whole[name] - before).double(), rtol=1e-4, atol=1e-7)

    looked_at(normed(None, model={"p": 0.5, "norm": False}, **BRIEF), look)


@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
def test_rows_left_out_keep_their_places_in_the_mean(executor: str) -> None:
    """One step on a batch of n without a row is the step minus this row's gradient times η / n."""

    def look(transition: Transition, context: Any) -> None:
        federation, rate = context.federation, 0.2
        work = context._work.stored_work(transition.run, transition.round, transition.client)
        rows = [int(row) for row in work.batches[0, 0] if row >= 0]
        whole = context.replay(transition, steps=1).kept
        only = context.replay(transition, steps=1, without=rows[1:]).kept
        leaves = {name: value.clone().requires_grad_() for name, value in transition.before.items()}
        outputs = torch.func.functional_call(
            federation.model, leaves, (torch.from_numpy(federation.store.inputs[rows[:1]]),)
        )
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(federation.store.targets[rows[:1]]))
        gradient = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        without = context.replay(transition, steps=1, without=rows[:1]).kept
        nothing = context.replay(transition, steps=1, without=rows).kept
        for name, value in transition.before.items():
            step = -rate * gradient[name] / len(rows)
            torch.testing.assert_close(only[name] - value, step, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(whole[name] - without[name], step, rtol=1e-4, atol=1e-6)
            assert torch.equal(nothing[name], value), "a batch without rows has a gradient of zero"

    looked_at(tiny(**BRIEF, speed={"executor": executor}), look)


@pytest.mark.parametrize("changes", [{}, {"client": DP}, {"client": {"kind": "sgd", "momentum": 0.5, "steps": 7}}])
def test_both_executors_replay_alike(changes: dict[str, Any]) -> None:
    outcomes: dict[str, list[Outcome]] = {}
    for executor in ("stacked", "one_by_one"):

        def look(transition: Transition, context: Any, executor: str = executor) -> None:
            rows = context.used_rows(transition.run, transition.client, transition.round)
            requests = [Replay(without=tuple(rows[:k].tolist())) for k in (1, 4)]
            requests += [Replay(extra={int(rows[0]): 0}), Replay(steps=2), Replay(without=tuple(rows.tolist()))]
            outcomes.setdefault(executor, []).extend(context.replays([(transition, one) for one in requests]))

        looked_at(tiny(**{**BRIEF, **changes}, speed={"executor": executor}), look)
    for one, other in zip(outcomes["stacked"], outcomes["one_by_one"], strict=True):
        for part in ("sent", "kept", "memory", "report"):
            for name, value in getattr(one, part).items():
                torch.testing.assert_close(getattr(other, part)[name], value, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_broken_mask_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail where a row that is left out is trained on all the same."""
    whole = StackedGradient.vmap

    def blind(info: Any, in_dims: Any, outputs: Any, names: Any, *tensors: Any) -> Any:
        inputs, targets, mask, *others = tensors
        return whole(info, in_dims, outputs, names, inputs, targets, mask.abs(), *others)

    monkeypatch.setattr(StackedGradient, "vmap", staticmethod(blind))
    with pytest.raises(Exception, match=r"not close|a gradient of zero"):
        test_rows_left_out_keep_their_places_in_the_mean("stacked")


def test_clipped_gradients_of_other_rows_stay_without_a_row() -> None:
    """With per-example clipping the divisor is fixed, so that removal is the removal of one clipped gradient."""
    client = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 6, "steps": 1, "noise_multiplier": 0.7, "clip": 0.1}

    def look(transition: Transition, context: Any) -> None:
        rows = context.used_rows(transition.run, transition.client, transition.round).tolist()
        noise_alone = context.replay(transition, without=rows).kept
        effects = [context.replay(transition, without=[r for r in rows if r != row]).kept for row in rows]
        for name, value in transition.kept.items():
            total = sum((one[name] - noise_alone[name]).double() for one in effects)
            torch.testing.assert_close(total, (value - noise_alone[name]).double(), rtol=1e-3, atol=1e-6)
        lengths = [
            sum(float((one[name] - noise_alone[name]).double().square().sum()) for name in one) ** 0.5
            for one in effects
        ]
        assert max(lengths) <= 0.5 * 0.1 / 6 * 1.001
        assert min(lengths) > 0

    looked_at(tiny(**{**BRIEF, "client": client}), look)


def test_many_replays_are_those_of_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(transition: Transition, context: Any) -> None:
        rows = context.used_rows(transition.run, transition.client, transition.round).tolist()[:6]
        requests = [(transition, Replay(without=(row,))) for row in rows]
        together = list(context.replays(requests))
        context._replays.forget()
        for request, outcome in zip(requests, together, strict=True):
            (alone,) = context.replays([request])
            assert same([alone.sent], [outcome.sent])
            assert not same([alone.sent], [transition.sent])

    looked_at(tiny(**BRIEF), look)
    monkeypatch.setattr(replays, "AT_ONCE", 1)
    monkeypatch.setattr(replays, "REMEMBERED", 0)
    looked_at(tiny(**BRIEF), look)


def test_other_weights_and_fewer_steps() -> None:
    def look(transition: Transition, context: Any) -> None:
        start = {name: value + 0.5 for name, value in transition.before.items()}
        assert same([context.replay(transition, start=start, steps=0).kept], [start])
        assert same([context.replay(transition, steps=0).kept], [transition.before])
        moved = context.replay(transition, start=start).kept
        assert not same([moved], [transition.kept])
        work = context._work.stored_work(transition.run, transition.round, transition.client)
        assert bit_equal(context.replay(transition, steps=int(work.steps[0])), transition)
        assert same([context.replay(transition, steps=2).kept], [context.steps(transition, 2)])

    looked_at(tiny(**SHORT), look)


def test_a_row_in_the_place_of_another() -> None:
    """Replaced by itself it is as it was; by another it is another; a row that nobody has changes nothing."""

    def look(transition: Transition, context: Any) -> None:
        rows = context.used_rows(transition.run, transition.client, transition.round).tolist()
        absent = sorted(set(range(len(context.federation.store))) - set(rows))[0]
        assert bit_equal(context.replay(transition, extra={rows[0]: rows[0]}), transition)
        assert bit_equal(context.replay(transition, extra={absent: rows[0]}), transition)
        assert bit_equal(context.replay(transition, without=[absent]), transition)
        assert not bit_equal(context.replay(transition, extra={rows[0]: absent}), transition)

    looked_at(tiny(**BRIEF, model={"kind": "logistic"}), look)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 99}, "99 steps, but the client did"),
        ({"steps": -1}, "-1 steps, but the client did"),
        ({"without": [10**6]}, "row 1000000 is not in the store"),
        ({"extra": {0: -1}}, "row -1 is not in the store"),
        ({"extra": {0: 1}, "without": [0]}, "row 0 is both left out and replaced"),
        ({"start": {"x": torch.zeros(1)}}, "should be"),
    ],
)
def test_changes_that_cannot_be_made_say_what_can(change: dict[str, Any], message: str) -> None:
    def look(transition: Transition, context: Any) -> None:
        with pytest.raises(ComponentError, match=message) as error:
            context.replay(transition, **change)
        assert f"run {transition.run}, round {transition.round}, client {transition.client}" in str(error.value)

    looked_at(tiny(**BRIEF), look)


@pytest.mark.parametrize("noisy", [{"client": DP}, NOISY], ids=["records", "messages"])
def test_other_draws_are_independent_and_repeat_themselves(noisy: dict[str, Any]) -> None:
    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        changes = [Replay(), Replay(draws=1), Replay(draws=2), Replay(draws=1)]
        same_draws, first, second, again = context.replays([(transition, change) for change in changes])
        assert bit_equal(same_draws, transition)
        assert same([first.sent], [again.sent])
        for one, other in ((first, second), (first, same_draws), (second, same_draws)):
            assert not any(torch.equal(value, other.sent[name]) for name, value in one.sent.items())

    looked_at(tiny(**{**BRIEF, **noisy}), look)


def test_other_draws_change_nothing_without_draws() -> None:
    def look(transition: Transition, context: Any) -> None:
        if transition.round:
            (outcome,) = context.replays([(transition, Replay(draws=3))])
            assert same([outcome.sent], [transition.sent])

    looked_at(tiny(**BRIEF), look)
