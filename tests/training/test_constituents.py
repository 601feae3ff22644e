"""Tests of `fedmem/training/constituents.py`: what is evaluated, and what a client of a shard can change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientAlgorithm, ClientState
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.training_mode import TrainingMode
from fedmem.defences.clip import Clip
from fedmem.training.client_work import Work
from fedmem.training.constituents import MeanOfConstituents, executor_by_shard, reference_executor
from fedmem.training.defence_pipeline import DefencePipeline
from fedmem.training.executor import Executor, Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked
from tests.training.stacked_helpers import initial, make_store, make_tasks, mlp

SHARDS = ClientShards(count=3)
MODE = TrainingMode(client_shards=SHARDS)
CLIENT = Sgd(lr=0.1, momentum=0.9, weight_decay=0.05, epochs=2, batch_size=4)
SIZES = [13, 1, 40, 4, 0, 8, 59]
RNG = np.random.default_rng(0)
STORE = make_store(RNG)


@dataclass(frozen=True, kw_only=True)
class Failing(Sgd):
    """Fails where its payload says so."""

    def init(self, params: Params, payload: Params, memory: Params) -> ClientState:
        if float(payload["fails"]):
            raise ValueError("no")
        return super().init(params, {}, memory)


def sharded() -> MeanOfConstituents:
    return MeanOfConstituents([mlp(seed) for seed in range(3)])


def executor(
    kind: type[OneByOne | Stacked], client: ClientAlgorithm = CLIENT, settings: Settings | None = None
) -> Executor:
    settings = settings or Settings(mode=MODE)
    return executor_by_shard(sharded(), settings, lambda network, of: kind(network, client, STORE, of))


def sent_by(trainer: Executor, before: Params, client: ClientAlgorithm = CLIENT) -> list[Params]:
    """What seven clients send; client c is in run c as well."""
    tasks = make_tasks(client, before, SIZES, np.random.default_rng(1))
    return [one.outcome.sent for one in trainer.train(tasks)]


def changed_shards(before: Params, sent: Params) -> set[int]:
    return {
        shard
        for shard in range(3)
        for name, value in SHARDS.constituent(shard, sent).items()
        if not torch.equal(value, before[SHARDS.entry(shard, name)])
    }


@pytest.mark.parametrize("shape", [(7, 4), (7, 5, 4)], ids=["classes", "next tokens"])
def test_the_output_is_the_log_of_the_mean_probabilities(shape: tuple[int, ...]) -> None:
    """By hand in float64, at every place of a text."""
    logits = [torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) * 9 for i in range(3)]

    class Constant(nn.Module):
        def __init__(self, output: torch.Tensor) -> None:
            super().__init__()
            self.output = output

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return self.output

    output = MeanOfConstituents([Constant(one) for one in logits])(torch.zeros(7)).numpy()
    weights = [np.exp(one.numpy() - one.numpy().max(-1, keepdims=True)) for one in logits]
    mean = sum(weight / weight.sum(-1, keepdims=True) for weight in weights) / 3
    np.testing.assert_allclose(output, np.log(mean), rtol=0, atol=1e-13)
    assert not np.allclose(output, sum(one.numpy() for one in logits) / 3), "no mean of logits"


def test_probabilities_of_zero_are_no_nan() -> None:
    network = MeanOfConstituents([nn.Identity(), nn.Identity()])
    assert network(torch.tensor([[0.0, -200.0]])).tolist() == [[0.0, -200.0]]


def test_constituents_share_what_is_frozen() -> None:
    networks = [mlp(seed) for seed in range(2)]
    for network in networks:
        network.get_submodule("1").requires_grad_(False)
    first, second = (dict(part.named_parameters()) for part in MeanOfConstituents(networks).constituents)
    assert torch.equal(first["1.weight"], second["1.weight"])
    assert not torch.equal(first["3.weight"], second["3.weight"])


@pytest.mark.parametrize("kind", [OneByOne, Stacked])
def test_a_client_changes_the_constituent_of_its_shard_alone(kind: type[OneByOne | Stacked]) -> None:
    """With momentum and weight decay, which would move parameters without a gradient."""
    before = initial(sharded())
    sent = sent_by(executor(kind), before)
    # client 4 has no rows
    assert [changed_shards(before, one) for one in sent] == [{0}, {1}, {2}, {0}, set(), {2}, {0}]
    assert [list(one) for one in sent] == [list(before)] * 7


def test_without_shards_clients_change_all_constituents() -> None:
    """The test above can fail: this is training of the evaluated network."""
    before = initial(sharded())
    sent = sent_by(OneByOne(sharded(), CLIENT, STORE), before)
    assert changed_shards(before, sent[0]) == {0, 1, 2}


@pytest.mark.parametrize("kind", [OneByOne, Stacked])
def test_a_constituent_is_trained_like_a_plain_network(kind: type[OneByOne | Stacked]) -> None:
    """To the last bit, although clients of all shards are trained together."""
    before = initial(sharded())
    sent = sent_by(executor(kind), before)
    for shard in range(3):
        plain = sent_by(kind(mlp(9), CLIENT, STORE), SHARDS.constituent(shard, before))
        for client in range(shard, 7, 3):
            own = SHARDS.constituent(shard, sent[client])
            assert all(torch.equal(value, plain[client][name]) for name, value in own.items())


def test_executors_agree() -> None:
    before = initial(sharded())
    for one, other in zip(*(sent_by(executor(kind), before) for kind in (OneByOne, Stacked)), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-6)
    models = [before, sent_by(executor(OneByOne), before)[2]]
    plain, stacked = (executor(kind).logits(models, STORE.inputs) for kind in (OneByOne, Stacked))
    np.testing.assert_allclose(plain, stacked, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.exp(plain).sum(-1), 1, atol=1e-5)


def test_clients_start_from_models_of_their_own() -> None:
    """Two models that are handed out and three shards: each client trains the right one of six constituents."""
    tasks = make_tasks(CLIENT, initial(sharded()), [8] * 6, np.random.default_rng(1))
    other = {name: value + 0.5 for name, value in tasks[0].before.items()}
    work = Work.of(tasks)
    both = Work.of([replace(task, before=other if task.client >= 3 else task.before) for task in tasks])
    sent, moved = (list(executor(Stacked).train_all(one).outcomes()) for one in (work, both))
    for client in range(6):
        assert changed_shards(both.model_before(client), moved[client].sent) == {client % 3}
        is_same = all(torch.equal(moved[client].sent[name], value) for name, value in sent[client].sent.items())
        assert is_same == (client < 3)


def test_a_defence_clips_the_update_of_the_constituent() -> None:
    settings = Settings(mode=MODE, defences=DefencePipeline((Clip(norm=0.01),), 0))
    before = initial(sharded())
    for sent in sent_by(executor(OneByOne, settings=settings), before):
        norm = sum(float((value - before[name]).square().sum()) for name, value in sent.items()) ** 0.5
        assert norm <= 0.01 * (1 + 1e-5)


def test_places_of_failures_are_those_of_the_work() -> None:
    tasks = make_tasks(CLIENT, initial(sharded()), [8] * 5, np.random.default_rng(1))
    tasks = [replace(task, payload={"fails": torch.tensor(float(task.client in (0, 3)))}) for task in tasks]
    trainer = reference_executor(sharded(), Failing(lr=0.1), STORE, Settings(mode=MODE))
    done, failures = trainer.attempt_all(Work.of(tasks))
    assert done is not None
    assert sorted(failures) == [0, 3]
    assert done.work.client.tolist() == [1, 2, 4]
    changed = [changed_shards(tasks[0].before, outcome.sent) for outcome in done.outcomes()]
    assert changed == [{1}, {2}, {1}]
    assert trainer.attempt_all(Work.of([tasks[0]]))[0] is None
