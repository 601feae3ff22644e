"""Private SGD: against Opacus's own optimiser, against naive loops, and what it promises to whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional as F

from fedmem import privacy
from fedmem.accounting import Releases, promise
from fedmem.bank import simulate
from fedmem.clients.dp_sgd import PrivateSgd
from fedmem.clients.sgd import Sgd
from fedmem.errors import ScenarioError
from fedmem.federation import build
from fedmem.per_example import NOISE, PrivateSteps, clipped_sum
from fedmem.seeding import Streams
from fedmem.training import OneByOne
from fedmem.types import Examples, Participation
from fedmem.work import Task
from tests.tiny import tiny

SGD = {"kind": "dp_sgd", "lr": 0.3, "batch_size": 6, "steps": 3}


def store(count: int = 12) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, 5)).astype(np.float32)
    return Examples(inputs=inputs, targets=rng.integers(3, size=count), ids=np.arange(count))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def task(batches: Any, model: nn.Module) -> Task:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    offer = {"round": torch.tensor(2.0)}
    return Task(run=1, round=2, client=3, before=before, rows=np.arange(12), batches=np.array(batches), offer=offer)


def by_opacus(client: PrivateSgd, work: Task, model: nn.Module, data: Examples) -> dict[str, torch.Tensor]:
    """The same steps by Opacus, given the noise that ours draws."""
    (rng,) = Streams(7, NOISE).each(run=[work.run], round=work.round, client=[work.client])
    wrapped = GradSampleModule(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=client.lr, momentum=client.momentum),
        noise_multiplier=0.0,
        max_grad_norm=client.clip,
        expected_batch_size=client.batch_size,
    )
    names = [name for name, _ in model.named_parameters()]
    for batch in work.batches:
        rows = batch[batch >= 0]
        optimizer.zero_grad()
        noise = [torch.from_numpy(rng.standard_normal(tuple(p.shape))) for p in model.parameters()]
        if len(rows):
            inputs, targets = torch.from_numpy(data.inputs[rows]), torch.from_numpy(data.targets[rows])
            F.cross_entropy(wrapped(inputs), targets, reduction="mean").backward()
        else:
            for parameter in model.parameters():
                parameter.grad_sample = torch.zeros((0, *parameter.shape))
        optimizer.clip_and_accumulate()
        for parameter, drawn in zip(model.parameters(), noise, strict=True):
            scale = client.noise_multiplier * client.clip
            parameter.grad = (parameter.summed_grad.double() + scale * drawn).float()
        optimizer.scale_grad()
        optimizer.original_optimizer.step()
    return dict(zip(names, (p.detach() for p in model.parameters()), strict=True))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_the_steps_are_those_of_opacus(clip: float) -> None:
    client = PrivateSgd(lr=0.3, momentum=0.5, clip=clip, noise_multiplier=0.8, batch_size=4)
    batches = [[0, 1, 2, 3, 4], [5, 6, -1, -1, -1], [-1] * 5, [7, 8, 9, 10, 11]]
    data, work = store(), task(batches, network())
    (ours,) = PrivateSteps(network(), client, data, seed=7).train([work])
    theirs = by_opacus(client, work, network(), data)
    for name, value in ours.outcome.sent.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)
    (other,) = PrivateSteps(network(), client, data, seed=8).train([work])
    assert not torch.allclose(other.outcome.sent["0.weight"], ours.outcome.sent["0.weight"], rtol=1e-2)


def test_without_noise_and_clipping_it_is_plain_sgd() -> None:
    batches = [[0, 1, 2, 3], [4, 5, 6, 7]]
    data, work = store(), task(batches, network())
    private = PrivateSgd(lr=0.3, clip=1e6, noise_multiplier=0.0, batch_size=4)
    (ours,) = PrivateSteps(network(), private, data, seed=0).train([work])
    (plain,) = OneByOne(network(), Sgd(lr=0.3, batch_size=4), data).train([work])
    for name, value in plain.outcome.sent.items():
        torch.testing.assert_close(ours.outcome.sent[name], value, rtol=1e-4, atol=1e-6)
    assert ours.loss == pytest.approx(plain.loss, rel=1e-5)


def test_an_empty_batch_is_a_step_of_noise() -> None:
    client = PrivateSgd(lr=1.0, clip=2.0, noise_multiplier=3.0, batch_size=4)
    work = task([[-1, -1]], network())
    (done,) = PrivateSteps(network(), client, store(), seed=0).train([work])
    step = torch.cat([(done.outcome.sent[name] - value).flatten() for name, value in work.before.items()])
    assert float(step.std()) == pytest.approx(3.0 * 2.0 / 4, rel=0.25)
    assert np.isnan(done.loss)


def test_each_example_is_clipped_by_itself() -> None:
    rng = np.random.default_rng(0)
    each = {"a": torch.from_numpy(rng.normal(size=(6, 3, 2))), "b": torch.from_numpy(rng.normal(size=(6, 4)))}
    each["a"][1], each["b"][1] = 0, 0
    each["a"][2, 0, 0] = torch.inf
    total = clipped_sum(each, 0.7)
    vectors = torch.cat([each["a"].flatten(1), each["b"]], dim=1).numpy()
    naive = np.zeros(10)
    for i, vector in enumerate(vectors):
        naive += 0 if i == 2 else vector * min(1.0, 0.7 / (np.linalg.norm(vector) + 1e-6))
    np.testing.assert_allclose(torch.cat([total["a"].flatten(), total["b"]]).numpy(), naive, rtol=1e-10)
    # the clipped mean, which steadies training and is no privacy, is something else
    mean = vectors[[0, 1, 3, 4, 5]].sum(0)
    assert not np.allclose(naive, mean * min(1.0, 0.7 / np.linalg.norm(mean)), rtol=0.1)


def test_batches_are_poisson() -> None:
    client = PrivateSgd(batch_size=5, steps=4000)
    drawn = client.batches(20, np.random.default_rng(0))
    sizes = (drawn >= 0).sum(1)
    assert sizes.mean() == pytest.approx(5, abs=0.15)
    assert sizes.var() == pytest.approx(20 * 0.25 * 0.75, rel=0.1)
    assert sizes.min() <= 1
    counts = np.bincount(drawn[drawn >= 0], minlength=20) / 4000
    assert np.all(np.abs(counts - 0.25) < 0.04)
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in drawn[:50].tolist() and drawn[:50])
    assert (client.rate(20), client.rate(3), client.rate(0)) == (0.25, 1.0, 0.0)
    assert PrivateSgd(batch_size=5, epochs=2).batches(3, np.random.default_rng(0)).tolist() == [[0, 1, 2]] * 2
    assert client.batches(0, np.random.default_rng(0)).shape == (0, 1)


def test_a_federation_is_what_its_runs_are_alone() -> None:
    scenario = tiny(client=SGD, runs=2, rounds=2, observe={})
    together = simulate(scenario, build(scenario))
    assert together.executor == "per_example"
    alone = simulate(scenario, build(scenario), runs=[1])
    for name, value in alone.params[0].items():
        assert torch.equal(value, together.params[1][name])
    noiseless = tiny(client={**SGD, "noise_multiplier": 0.0}, runs=2, rounds=2, observe={})
    other = simulate(noiseless, build(noiseless)).params[1]
    assert not all(torch.allclose(other[name], value, rtol=0.1) for name, value in together.params[1].items())


def test_each_client_promises_what_its_rows_allow() -> None:
    scenario = tiny(client=SGD, runs=2, privacy={"delta": 1e-4})
    there = [(0, 60, 1), (0, 60, 2), (1, 12, 1), (1, 13, 2), (2, 30, 3)]
    parts = [
        Participation(run=run, round=round, client=client, num_examples=rows, failed=False)
        for client, rows, round in there
        for run in (0, 1)
    ]
    bank: Any = SimpleNamespace(participation=parts)
    found = {client: one.releases for client, one in privacy.of_records(scenario, bank, 4).items()}
    assert {client: (one.rate, one.count) for client, one in found.items()} == {0: (0.1, 6), 1: (0.5, 6), 2: (0.2, 3)}
    assert found[1] == Releases(
        noise_multiplier=1.0, sampling="poisson", rate=0.5, count=6, delta=1e-4, unit="record", adjacency="add_remove"
    )
    told = privacy.spent(scenario, bank)
    assert told is not None
    assert told["mechanisms"][0]["epsilon"] == promise(found[1]).epsilon
    rows = [row.reading.value for row in privacy.measured(scenario, bank) if row.client == 1]
    assert rows == [promise(found[1]).epsilon]
    assert not privacy.of_records(tiny(), bank, 4)


@pytest.mark.parametrize("speed", [{"engine": "flower"}, {"executor": "stacked"}])
def test_other_ways_to_train_are_refused(speed: Any) -> None:
    with pytest.raises(ScenarioError, match="stacks the examples of one client after the other"):
        tiny(client=SGD, speed=speed)
