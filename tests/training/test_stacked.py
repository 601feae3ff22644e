"""The stacked executor against the one-by-one reference, and the reference against torch's own optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.training.executor import STACK_BYTES, Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task
from tests.toys import Carrying
from tests.training.stacked_helpers import CLASSES, initial, make_store, make_tasks, mlp


def cnn(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES))


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize(
    "client",
    [
        Sgd(lr=0.2, epochs=2, batch_size=4),
        Sgd(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=1, batch_size=7),
        Sgd(lr=0.3, steps=5, batch_size=8),
        Sgd(lr=0.3, decay=0.7, clip=0.4, momentum=0.5, epochs=2, batch_size=5),
    ],
)
@pytest.mark.parametrize("offer", [{}, {"mu": torch.tensor(0.8, dtype=torch.float64)}], ids=["plain", "pulled"])
def test_stacked_equals_one_by_one(build: Callable[[int], nn.Module], client: Sgd, offer: Params) -> None:
    rng = np.random.default_rng(0)
    model, store = build(0), make_store(rng)
    offer = {**offer, "round": torch.tensor(3.0)}
    tasks = make_tasks(client, initial(model), [13, 1, 40, 4, 0, 8, 59], rng, offer)
    plain = OneByOne(model, client, store).train(tasks)
    stacked = Stacked(model, client, store).train(tasks)
    for one, other in zip(plain, stacked, strict=True):
        assert one.task is other.task
        # relative to the largest weight: how a sum of few is rounded differs from machine to machine
        largest = max(float(value.abs().max()) for value in one.outcome.sent.values())
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=0, atol=1e-5 * largest)
        assert one.loss == pytest.approx(other.loss, rel=1e-5, nan_ok=True)


def test_dropping_one_row_changes_the_model_beyond_tolerance() -> None:
    """The equality above has teeth: dropping one row of a batch moves the model by more than its tolerance."""
    rng = np.random.default_rng(1)
    model, store, client = mlp(0), make_store(rng), Sgd(lr=0.2, batch_size=4)
    task = make_tasks(client, initial(model), [9], rng)[0]
    short = task.batches.copy()
    short[0, 3] = -1
    executor = OneByOne(model, client, store)
    whole = executor.train([task])[0].outcome.sent
    cut = executor.train([Task(run=0, round=1, client=0, before=task.before, rows=task.rows, batches=short)])[0]
    assert any(not torch.allclose(whole[name], cut.outcome.sent[name], rtol=1e-4, atol=1e-5) for name in whole)


def test_chunks_change_no_bit() -> None:
    rng = np.random.default_rng(2)
    model, store, client = mlp(0), make_store(rng), Sgd(lr=0.2, epochs=2, batch_size=4)
    tasks = make_tasks(client, initial(model), [20, 20, 20, 20, 20, 20], rng)
    whole = Stacked(model, client, store).train(tasks)
    three = 3 * 4 * sum(v.numel() for v in initial(model).values())
    assert 2 * three < STACK_BYTES
    for one, other in zip(whole, Stacked(model, client, store, Settings(stack_bytes=three)).train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=1e-6, atol=1e-7)


def test_training_leaves_the_initial_model_alone() -> None:
    rng = np.random.default_rng(6)
    model, store, client = mlp(0), make_store(rng), Sgd(lr=1.0)
    before = initial(model)
    copies = {name: value.clone() for name, value in before.items()}
    for kind in (OneByOne, Stacked):
        kind(model, client, store).train(make_tasks(client, before, [10, 0, 30], rng))
        assert all(torch.equal(before[name], copies[name]) for name in before)


def test_no_tasks_no_outcomes() -> None:
    model, store = mlp(0), make_store(np.random.default_rng(0))
    assert OneByOne(model, Sgd(), store).train([]) == Stacked(model, Sgd(), store).train([]) == []


def test_logits_agree_and_are_float64() -> None:
    rng = np.random.default_rng(7)
    model, store = mlp(0), make_store(rng)
    models = [initial(mlp(seed)) for seed in range(5)]
    plain = OneByOne(model, Sgd(), store).logits(models, store.inputs)
    stacked = Stacked(model, Sgd(), store).logits(models, store.inputs)
    assert plain.shape == (5, 60, CLASSES)
    assert plain.dtype == stacked.dtype == np.float64
    np.testing.assert_allclose(plain, stacked, rtol=1e-5, atol=1e-6)


def test_clients_with_other_payload_or_state_are_separate_stacks() -> None:
    """Half have a velocity from before, half not, and one is pulled: each equals itself trained alone."""
    rng = np.random.default_rng(8)
    model, store, client = mlp(0), make_store(rng), Carrying()
    before = initial(model)
    offer = {"turns": torch.tensor(1.0), "round": torch.tensor(2.0)} | {f"last:{n}": v / 9 for n, v in before.items()}
    tasks = make_tasks(Sgd(batch_size=8), before, [20, 9, 20, 31, 9], rng, offer)
    tasks = [replace(task, memory=before if i % 2 else {}) for i, task in enumerate(tasks)]
    tasks[2] = replace(tasks[2], payload={**tasks[2].payload, "more": torch.ones(3)})
    plain = OneByOne(model, client, store).train(tasks)
    for one, other in zip(plain, Stacked(model, client, store).train(tasks), strict=True):
        assert one.task is other.task
        for part in ("sent", "memory"):
            for name, value in getattr(one.outcome, part).items():
                torch.testing.assert_close(getattr(other.outcome, part)[name], value, rtol=1e-4, atol=1e-5)
        assert float(one.outcome.report["norm"]) == pytest.approx(float(other.outcome.report["norm"]), rel=1e-4)
    assert not torch.allclose(plain[0].outcome.memory["1.bias"], plain[1].outcome.memory["1.bias"], rtol=1e-2)


class Heavy(Sgd):
    """Heavy ball: remembers the model before the last, and names its parts in another order than it was given."""

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return {"params": before, "previous": before}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        params, found = state["params"], gradient(state["params"])
        moved = {n: v - self.lr * found[n] + 0.5 * (v - state["previous"][n]) for n, v in params.items()}
        return {"previous": params, "params": dict(reversed(moved.items()))}


@pytest.mark.parametrize("sizes", [[12, 12, 12], [20, 12, 4]], ids=["equal", "unequal"])
def test_entries_of_the_state_may_change_order_and_names(sizes: list[int]) -> None:
    rng = np.random.default_rng(11)
    model, store, client = mlp(0), make_store(rng), Heavy(lr=0.2, epochs=2, batch_size=4)
    tasks = make_tasks(client, initial(model), sizes, rng)
    stacked = Stacked(model, client, store)
    for _ in range(3):
        for one, other in zip(OneByOne(model, client, store).train(tasks), stacked.train(tasks), strict=True):
            for name, value in one.outcome.sent.items():
                torch.testing.assert_close(other.outcome.sent[name], value, rtol=0, atol=1e-5)


def test_empty_stack_does_not_affect_later_stacks() -> None:
    rng = np.random.default_rng(12)
    model, store, client = mlp(0), make_store(rng), Sgd(lr=0.5, batch_size=4)
    stacked, reference = Stacked(model, client, store), OneByOne(model, client, store)
    stacked.train(make_tasks(client, initial(model), [0, 0], rng))
    tasks = make_tasks(client, initial(model), [8, 8], rng)
    for one, other in zip(reference.train(tasks), stacked.train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=0, atol=1e-5)


def test_rows_of_other_clients_cannot_make_a_client_fail() -> None:
    """Short batches are padded; with row 0 of the store, whoever holds it, they would be lost with it."""
    rng = np.random.default_rng(13)
    model, store, client = mlp(0), make_store(rng), Sgd(lr=0.1, batch_size=4)
    store.inputs[0] = np.nan
    tasks = [replace(task, rows=1 + task.rows % 59) for task in make_tasks(client, initial(model), [10, 7, 5], rng)]
    for done in Stacked(model, client, store).train(tasks):
        assert all(torch.isfinite(value).all() for value in done.outcome.sent.values())


class Turning(Carrying):
    """Keeps what it sends on its first turn, and something else once it remembers."""

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        state = {"params": before, "offer": offer}
        return {**state, "memory": memory} if memory else state

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        found = gradient(state["params"])
        return {**state, "params": {n: v - 0.1 * found[n] for n, v in state["params"].items()}}

    def final(self, state: ClientState, before: Params) -> Outcome:
        kept = before if "memory" in state else state["params"]
        return Outcome(sent=state["params"], kept=kept, memory={"turn": state["offer"]["round"]})


def test_kept_parameters_are_decided_by_each_stack() -> None:
    rng = np.random.default_rng(14)
    model, store, client = mlp(0), make_store(rng), Turning()
    before = initial(model)
    first = make_tasks(client, before, [8, 8], rng, {"round": torch.tensor(1.0)})
    later = [replace(task, memory={"turn": torch.tensor(1.0)}) for task in first]
    stacked = Stacked(model, client, store)
    for tasks, keeps in ((first, False), (later, True), (first, False), ([first[0], later[1]], None)):
        for task, done in zip(tasks, stacked.train(tasks), strict=True):
            own = bool(task.memory) if keeps is None else keeps
            for name, value in before.items():
                assert torch.equal(done.outcome.kept[name], value if own else done.outcome.sent[name])


@pytest.mark.parametrize("sizes", [[0], [0, 0], [3, 0, 9, 9, 1, 5], [20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
def test_client_with_fewer_steps_is_unchanged_afterwards(sizes: list[int]) -> None:
    """Clients of other numbers of steps in one stack, and each alone, to the last bit."""
    rng = np.random.default_rng(3)
    client = Sgd(lr=0.2, momentum=0.5, epochs=2, batch_size=4)
    model, store = mlp(1), make_store(rng)
    tasks = make_tasks(client, initial(model), sizes, rng)
    stacked = Stacked(model, client, store)
    together = stacked.train(tasks)
    for task, one in zip(tasks, together, strict=True):
        (alone,) = stacked.train([task])
        assert all(torch.equal(one.outcome.sent[name], value) for name, value in alone.outcome.sent.items())
        assert one.loss == alone.loss or (np.isnan(one.loss) and np.isnan(alone.loss) and not len(task.rows))
