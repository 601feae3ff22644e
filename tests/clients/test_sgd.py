"""Clipping, decay and the proximal pull of the `sgd` client, against plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Examples
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task, TrainedClient


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5))


MODEL = network()
BEFORE = {name: value.detach().clone() for name, value in MODEL.named_parameters()}
RNG = np.random.default_rng(0)
STORE = Examples(inputs=RNG.random((40, 1, 4, 4), dtype=np.float32), targets=RNG.integers(0, 5, 40), ids=np.arange(40))


def trained(client: Sgd, round_number: int = 1, executor: type = OneByOne, **offer: float) -> TrainedClient:
    """One round of one client with 23 rows; the batches are the same whatever the settings."""
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in {**offer, "round": round_number}.items()}
    batches = client.batches(23, np.random.default_rng(1))
    task = Task(run=0, round=round_number, client=0, before=BEFORE, rows=np.arange(23), batches=batches, payload=given)
    out: TrainedClient = executor(MODEL, client, STORE).train([task])[0]
    return out


def by_hand(
    client: Sgd, lr: float, mu: float = 0.0, change: Callable[[list[torch.Tensor]], object] = lambda gradients: None
) -> Params:
    """The same round in plain PyTorch: the pull is part of the loss, `change` acts on the gradients of the data."""
    weights = {name: value.clone().requires_grad_() for name, value in BEFORE.items()}
    velocity = {name: torch.zeros_like(value) for name, value in BEFORE.items()}
    for positions in client.batches(23, np.random.default_rng(1)):
        rows = positions[positions >= 0]
        outputs = torch.func.functional_call(MODEL, weights, (torch.from_numpy(STORE.inputs[rows]),))
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(STORE.targets[rows]))
        gradients = list(torch.autograd.grad(loss, list(weights.values())))
        change(gradients)
        pull = mu / 2 * torch.stack([((value - BEFORE[name]) ** 2).sum() for name, value in weights.items()]).sum()
        pulls = torch.autograd.grad(pull, list(weights.values())) if mu else [torch.zeros(())] * len(weights)
        for (name, value), gradient, towards in zip(list(weights.items()), gradients, pulls, strict=True):
            velocity[name] = client.momentum * velocity[name] + gradient + towards
            weights[name] = (value - lr * velocity[name]).detach().requires_grad_()
    return {name: value.detach() for name, value in weights.items()}


def near(one: Params, other: Params) -> bool:
    return all(torch.allclose(one[name], value, rtol=1e-5, atol=1e-6) for name, value in other.items())


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_proximal_term_is_gradient_of_half_mu_squared_distance(momentum: float) -> None:
    client = Sgd(lr=0.3, momentum=momentum, epochs=3, batch_size=4)
    found = trained(client, mu=0.7).outcome.sent
    assert near(found, by_hand(client, 0.3, mu=0.7))
    assert not near(found, by_hand(client, 0.3, mu=1.4)), "without the half"
    assert not near(found, by_hand(client, 0.3, mu=-0.7)), "with the wrong sign"


def test_the_first_step_feels_no_pull() -> None:
    one = Sgd(lr=0.3, steps=1, batch_size=4)
    free, pulled = trained(one).outcome.sent, trained(one, mu=5.0).outcome.sent
    assert all(torch.equal(free[name], pulled[name]) for name in free)


def norm_of(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()


def test_clipping_is_torchs_own_on_the_gradient_of_a_batch() -> None:
    client = Sgd(lr=0.3, momentum=0.5, clip=0.2, epochs=2, batch_size=4)
    met = []

    def clip(gradients: list[torch.Tensor]) -> None:
        norm = norm_of(gradients)
        met.append(float(norm))
        for gradient in gradients:
            gradient *= min(1.0, 0.2 / float(norm))

    def each_alone(gradients: list[torch.Tensor]) -> None:
        for gradient in gradients:
            gradient *= min(1.0, 0.2 / float(gradient.norm()))

    found = trained(client).outcome.sent
    assert near(found, by_hand(client, 0.3, change=clip))
    assert min(met) > 0.2
    assert not near(found, by_hand(client, 0.3, change=each_alone)), "one norm over all parameters"
    assert near(trained(client, mu=2.0).outcome.sent, by_hand(client, 0.3, mu=2.0, change=clip)), (
        "the pull is not clipped"
    )


def test_a_bound_that_is_never_reached_changes_no_bit() -> None:
    free, bound = (trained(Sgd(lr=0.3, clip=clip)).outcome.sent for clip in (None, 1e6))
    assert all(torch.equal(free[name], bound[name]) for name in free)


@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_one_clipped_step_has_length_lr_times_clip(executor: type) -> None:
    client = Sgd(lr=0.5, clip=0.1, steps=1, batch_size=8)
    sent = trained(client, executor=executor).outcome.sent
    moved = [sent[name] - value for name, value in BEFORE.items()]
    assert float(norm_of(moved)) == pytest.approx(0.05, rel=1e-4)


def test_a_gradient_of_zero_stays_zero() -> None:
    client = Sgd(lr=0.5, clip=0.1)
    state = client.step(client.init(BEFORE, {}, {}), lambda params: {n: torch.zeros_like(v) for n, v in params.items()})
    assert all(torch.equal(state["params"][name], value) for name, value in BEFORE.items())


@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_learning_rate_decays_between_rounds_not_within(executor: type) -> None:
    client = Sgd(lr=0.4, decay=0.5, epochs=2, batch_size=4)
    for round_number, lr in ((1, 0.4), (2, 0.2), (4, 0.05)):
        found = trained(client, round_number, executor).outcome.sent
        assert near(found, by_hand(client, lr))
        assert not near(found, by_hand(client, lr / 2))
    constant = trained(Sgd(lr=0.4, epochs=2, batch_size=4), 9, executor).outcome.sent
    assert near(constant, by_hand(client, 0.4))


@pytest.mark.parametrize("options", [{"epochs": 4}, {"steps": 20}])
def test_every_epoch_has_an_order_of_its_own(options: dict[str, Any]) -> None:
    batches = Sgd(batch_size=5, **options).batches(23, np.random.default_rng(0))
    epochs = [epoch[epoch >= 0].tolist() for epoch in batches.reshape(4, 25)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(23))] * 4, "each row once in an epoch"
    for i, epoch in enumerate(epochs):
        assert epoch != sorted(epoch)
        for other in epochs[:i]:
            # in an order that is drawn anew, about one row is where it was
            assert sum(a == b for a, b in zip(epoch, other, strict=True)) < 8
