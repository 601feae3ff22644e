"""Private SGD: against Opacus's own optimiser, against naive loops, and what it promises to whom."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional as F

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Participation
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy import spending
from fedmem.privacy.accounting import Releases, guarantee_of
from fedmem.seeding import Streams
from fedmem.training.client_work import Task
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.per_example import NOISE, SPENT, Noise
from fedmem.training.stacked import Stacked
from fedmem.training.worker_pool import PooledExecutor
from tests.clients.dp_sgd_helpers import SGD, naive, networks, store
from tests.narrowing import present
from tests.tiny import tiny


def executors(test: Any) -> Any:
    """By every executor, on models of every kind."""
    return pytest.mark.parametrize("executor", [OneByOne, Stacked])(networks(test))


def task(batches: Any, model: nn.Module) -> Task:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    offer = {"round": torch.tensor(2.0)}
    return Task(run=1, round=2, client=3, before=before, rows=np.arange(12), batches=np.array(batches), payload=offer)


def by_opacus(client: DpSgd, work: Task, model: nn.Module, data: Examples) -> dict[str, torch.Tensor]:
    """The same steps by Opacus, given the noise that ours draws."""
    (rng,) = Streams(7, NOISE).generators(run=[work.run], round_number=work.round, client=[work.client])
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
            loss = F.cross_entropy(wrapped(inputs), targets, reduction="mean")
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not say its types
        else:
            for parameter in model.parameters():
                setattr(parameter, "grad_sample", torch.zeros((0, *parameter.shape)))  # noqa: B010 - of Opacus
        optimizer.clip_and_accumulate()
        for parameter, drawn in zip(model.parameters(), noise, strict=True):
            scale = present(client.noise_multiplier) * client.clip
            summed: torch.Tensor = getattr(parameter, "summed_grad")  # noqa: B009 - of Opacus
            parameter.grad = (summed.double() + scale * drawn).float()
        optimizer.scale_grad()
        optimizer.original_optimizer.step()
    return dict(zip(names, (p.detach() for p in model.parameters()), strict=True))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@executors
@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_the_steps_are_those_of_opacus(executor: Any, network: Any, clip: float) -> None:
    # noise of one length at most, since weights that run away make rounding large
    noise = 0.8 / max(clip, 1.0)
    client = DpSgd(lr=0.3, momentum=0.5, clip=clip, noise_multiplier=noise, batch_size=4)
    batches = [[0, 1, 2, 3, 4], [5, 6, -1, -1, -1], [-1] * 5, [7, 8, 9, 10, 11]]
    data, work = store(), task(batches, network())
    (ours,) = executor(network(), client, data, Settings(seed=7)).train([work])
    theirs = by_opacus(client, work, network(), data)
    for name, value in ours.outcome.sent.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)
    (other,) = executor(network(), client, data, Settings(seed=8)).train([work])
    first = next(iter(theirs))
    assert not torch.allclose(other.outcome.sent[first], ours.outcome.sent[first], rtol=1e-2)


@executors
def test_without_noise_and_clipping_it_is_plain_sgd(executor: Any, network: Any) -> None:
    batches = [[0, 1, 2, 3], [4, 5, 6, 7]]
    data, work = store(), task(batches, network())
    private = DpSgd(lr=0.3, clip=1e6, noise_multiplier=0.0, batch_size=4)
    (ours,) = executor(network(), private, data, Settings(seed=0)).train([work])
    (plain,) = OneByOne(network(), Sgd(lr=0.3, batch_size=4), data).train([work])
    for name, value in plain.outcome.sent.items():
        torch.testing.assert_close(ours.outcome.sent[name], value, rtol=1e-4, atol=1e-6)
    assert ours.loss == pytest.approx(plain.loss, rel=1e-5)


@executors
def test_an_empty_batch_is_a_step_of_noise(executor: Any, network: Any) -> None:
    client = DpSgd(lr=1.0, clip=2.0, noise_multiplier=3.0, batch_size=4)
    work = task([[-1, -1]], network())
    (done,) = executor(network(), client, store(), Settings(seed=0)).train([work])
    step = torch.cat([(done.outcome.sent[name] - value).flatten() for name, value in work.before.items()])
    assert float(step.std()) == pytest.approx(3.0 * 2.0 / 4, rel=0.25)
    assert np.isnan(done.loss)


def test_batches_are_poisson() -> None:
    client = DpSgd(batch_size=5, steps=4000)
    drawn = client.batches(20, np.random.default_rng(0))
    sizes = (drawn >= 0).sum(1)
    assert sizes.mean() == pytest.approx(5, abs=0.15)
    assert sizes.var() == pytest.approx(20 * 0.25 * 0.75, rel=0.1)
    assert sizes.min() <= 1
    counts = np.bincount(drawn[drawn >= 0], minlength=20) / 4000
    assert np.all(np.abs(counts - 0.25) < 0.04)
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in drawn[:50].tolist() and drawn[:50])
    assert (client.rate(20), client.rate(3), client.rate(0)) == (0.25, 1.0, 0.0)
    assert DpSgd(batch_size=5, epochs=2).batches(3, np.random.default_rng(0)).tolist() == [[0, 1, 2]] * 2
    assert client.batches(0, np.random.default_rng(0)).shape == (0, 1)


def test_a_federation_is_what_its_runs_are_alone() -> None:
    scenario = tiny(client=SGD, runs=2, rounds=2, observe={})
    together = simulate(scenario, build(scenario))
    assert together.executor == "stacked"
    alone = simulate(scenario, build(scenario), runs=[1])
    for name, value in alone.params[0].items():
        assert torch.equal(value, together.params[1][name])
    noiseless = tiny(client={**SGD, "noise_multiplier": 0.0}, runs=2, rounds=2, observe={})
    other = simulate(noiseless, build(noiseless)).params[1]
    assert not all(torch.allclose(other[name], value, rtol=0.1) for name, value in together.params[1].items())


def test_each_client_has_the_epsilon_of_its_row_count() -> None:
    scenario = tiny(client=SGD, runs=2, privacy={"delta": 1e-4})
    there = [(0, 60, 1), (0, 60, 2), (1, 12, 1), (1, 13, 2), (2, 30, 3)]
    parts = [
        Participation(run=run, round=round_number, client=client, num_examples=rows, failed=False)
        for client, rows, round_number in there
        for run in (0, 1)
    ]
    bank: Any = SimpleNamespace(participation=parts)
    found = {client: one.releases for client, one in spending.of_records(scenario, bank, 4).items()}
    assert {client: (one.rate, one.count) for client, one in found.items()} == {0: (0.1, 6), 1: (0.5, 6), 2: (0.2, 3)}
    assert found[1] == Releases(
        noise_multiplier=1.0, sampling="poisson", rate=0.5, count=6, delta=1e-4, unit="record", adjacency="zero_out"
    )
    told = spending.spending_record(scenario, bank)
    assert told is not None
    assert told["mechanisms"][0]["epsilon"] == guarantee_of(found[1]).epsilon
    assert told["says"] == spending.MEANING
    large = tiny(client=SGD, runs=2, privacy={"delta": 1 / 30})
    said = spending.spending_record(large, bank)
    assert said is not None
    assert "not less than one over the rows of 2 of 3 clients" in said["says"]
    assert "1 / 60 = 0.017" in said["says"]
    rows = [row.reading.value for row in spending.epsilon_rows(scenario, bank) if row.client == 1]
    assert rows == [guarantee_of(found[1]).epsilon]
    assert not spending.of_records(tiny(), bank, 4)


def tasks(model: nn.Module, count: int = 7) -> list[Task]:
    """Clients with Poisson batches of various widths and numbers, some empty."""
    rng = np.random.default_rng(5)
    there = []
    for client in range(count):
        plan = DpSgd(batch_size=3, steps=1 + client % 4).batches(12, rng)
        if client == 2:
            plan[0] = -1
        there.append(replace(task(plan, model), client=client))
    return there


@networks
def test_all_executors_agree_and_stacks_may_be_cut_anywhere(network: Any) -> None:
    client = DpSgd(lr=0.3, momentum=0.5, clip=0.5, batch_size=3)
    model, data = network(), store()
    work = tasks(model)
    alone = OneByOne(model, client, data, Settings(seed=7)).train(work)
    whole, cut = (Stacked(model, client, data, Settings(seed=7, stack_bytes=size)).train(work) for size in (0, 1))
    spread = PooledExecutor(model, client, data, Settings(seed=7), workers=2)
    try:
        apart = spread.train(work)
    finally:
        spread.close()
    for one, stacked, single, forked in zip(alone, whole, cut, apart, strict=True):
        assert one.loss == pytest.approx(stacked.loss, rel=1e-5, nan_ok=True)
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(stacked.outcome.sent[name], value, rtol=1e-5, atol=1e-6)
            assert torch.equal(stacked.outcome.sent[name], single.outcome.sent[name])
            assert torch.equal(forked.outcome.sent[name], value)


# --- what records spend -----------------------------------------------------------------------------------------------


def by_hand(client: DpSgd, work: Task, model: nn.Module, data: Examples) -> Any:
    """min(norm, S)^2 / S^2 of each row of the client, summed over its steps, from plain gradients along the way."""
    noise = Noise(7).of(work.run, work.round, work.client, sum(v.numel() for v in work.before.values()))
    params, total = dict(work.before), np.zeros(len(data))
    for batch in work.batches:
        rows = batch[batch >= 0]
        inputs, targets = torch.from_numpy(data.inputs[rows]), torch.from_numpy(data.targets[rows])
        for i, row in enumerate(rows):
            alone = naive(model, params, inputs[i : i + 1], targets[i : i + 1], 1e9)
            total[row] += min(np.sqrt(sum(np.square(v).sum() for v in alone.values())) / client.clip, 1.0) ** 2
        summed = naive(model, params, inputs, targets, client.clip)
        drawn, start = next(noise).numpy(), 0
        for name, value in params.items():
            part = drawn[start : start + value.numel()].reshape(tuple(value.shape))
            start += value.numel()
            step = (summed[name] + present(client.noise_multiplier) * client.clip * part) / client.batch_size
            params[name] = value - client.lr * torch.from_numpy(step).float()
    return total


@networks
@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_spent_privacy_is_counted_by_each_records_gradient(executor: Any, network: Any) -> None:
    model, data = network(), store()
    client = DpSgd(lr=0.1, clip=1.0, noise_multiplier=0.2, batch_size=3)
    work = tasks(model, 4)
    earlier = {name: torch.tensor(2.0, dtype=torch.float64) for name in SPENT}
    work[3] = replace(work[3], memory=earlier)
    done = executor(model, client, data, Settings(seed=7)).train(work)
    for i, (one, given) in enumerate(zip(done, work, strict=True)):
        expected, before = by_hand(client, given, model, data), 2.0 * (i == 3)
        assert expected.max() > 0
        told = {name: float(one.outcome.report[name]) for name in SPENT}
        assert told == {name: float(one.outcome.memory[name]) for name in SPENT}
        assert told["spent_sum"] == pytest.approx(before + expected.sum(), rel=1e-3)
        assert told["spent_most"] == pytest.approx(before + expected.max(), rel=1e-3)
        # without the clip it is more, and the sum of all is more than that of one
        assert expected.sum() > expected.max()


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [{"kind": "char_rnn", "hidden": 8}, {"kind": "transformer", "width": 8, "layers": 1}])
def test_clients_of_texts_hide_their_windows(model: Any) -> None:
    """A record is a window: so many are promised to, and one by one or stacked it trains and is accounted for."""
    found = []
    for executor in ("one_by_one", "auto"):
        scenario = tiny(
            runs=2,
            rounds=2,
            clients=2,
            dataset={"kind": "shakespeare", "clients": 2, "length": 12, "max_chars": 1000, "test": 0.2},
            partition={"kind": "natural"},
            population=4,
            model=model,
            injections=[],
            sampler={"kind": "everyone"},
            client={"kind": "dp_sgd", "lr": 0.5, "steps": 2, "batch_size": 4, "clip": 0.5},
            speed={"executor": executor, "workers": 1},
        )
        federation = build(scenario)
        found.append(simulate(scenario, federation))
        told = spending.spending_record(scenario, found[-1].bank)
        assert told is not None
        (one,) = told["mechanisms"]
        smallest = min(len(federation.rows(0, client, 1)) for client in (0, 1))
        assert federation.store.inputs.shape[1:] == (12,)
        assert (one["unit"], one["releases"], one["rate"]) == ("record", 4, 4 / smallest)
        moved = [(found[-1].params[0][name] - value).abs().max() for name, value in federation.initial.items()]
        assert all(float(value) > 0 for value in moved)
    for one, other in zip(found[0].params, found[1].params, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)
