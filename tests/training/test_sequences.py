"""Passages: what is asked at several places of a row, in training, in what models say, and in what is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank
from fedmem.modalities.scores import losses
from fedmem.observation.evidence import evidence_of, rank_of
from fedmem.results.evidence_table import evidence_rows, read_evidence
from fedmem.results.readings import write_readings
from fedmem.training.executor import BaseExecutor
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task
from tests.training.sequences_helpers import Counts, L, V, loss_by_hand, params_of, passages, told, transitions_of


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Counts()


@pytest.mark.parametrize("client", [Sgd(lr=0.3, epochs=2, batch_size=4), Sgd(lr=0.2, momentum=0.9, steps=5)])
def test_executors_train_passages_as_a_plain_loop(model: nn.Module, client: Sgd) -> None:
    rng, store, before = np.random.default_rng(1), passages(30), params_of(model)
    tasks = [
        Task(
            run=i,
            round=1,
            client=i,
            before=before,
            rows=rng.permutation(30)[:size],
            batches=client.batches(size, rng),
            payload={"round": torch.tensor(1.0)},
        )
        for i, size in enumerate([9, 1, 20])
    ]
    plain = OneByOne(model, client, store).train(tasks)
    for one, other in zip(plain, Stacked(model, client, store).train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=1e-5, atol=1e-5)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
    if client.momentum:
        return
    params = {name: value.clone() for name, value in before.items()}
    for batch in tasks[0].batches:
        rows = store.take(tasks[0].rows[batch[batch >= 0]])
        leaves = {name: value.requires_grad_() for name, value in params.items()}
        loss = loss_by_hand(functional_call(model, leaves, (torch.from_numpy(rows.inputs),)), rows.targets).mean()
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        params = {name: (params[name] - 0.3 * g).detach() for name, g in zip(leaves, slopes, strict=True)}
    for name, value in params.items():
        torch.testing.assert_close(plain[0].outcome.sent[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_each_passage_is_clipped_by_itself(model: nn.Module, executor: type[BaseExecutor]) -> None:
    """One step of a private client without noise is the sum of the clipped gradients of whole passages."""
    clip, store, before = 0.5, passages(6), params_of(model)
    client = DpSgd(lr=1.0, batch_size=6, steps=1, clip=clip, noise_multiplier=0.0)
    task = Task(
        run=0,
        round=1,
        client=0,
        before=before,
        rows=np.arange(6),
        batches=np.arange(6)[None],
        payload={"round": torch.tensor(1.0)},
    )
    sent = executor(model, client, store).train([task])[0].outcome.sent
    expected = {name: value.clone() for name, value in before.items()}
    for i in range(6):
        leaves = {name: value.clone().requires_grad_() for name, value in before.items()}
        row = store.take(np.array([i]))
        loss = loss_by_hand(functional_call(model, leaves, (torch.from_numpy(row.inputs),)), row.targets).sum()
        slopes = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        norm = torch.sqrt(sum((g.square().sum() for g in slopes.values()), torch.tensor(0.0)))
        for name, g in slopes.items():
            expected[name] -= g * min(1.0, clip / float(norm)) / 6
    for name, value in expected.items():
        torch.testing.assert_close(sent[name], value, rtol=1e-4, atol=1e-5)


def test_evidence_of_passages_equals_a_loop_over_places(model: nn.Module) -> None:
    rows, models = passages(8), [params_of(model, seed) for seed in range(3)]
    found = told(model, models, rows)
    assert found.correct.dtype == np.float64
    for t, params in enumerate(models):
        logits = functional_call(model, params, (torch.from_numpy(rows.inputs),)).double()
        p = logits.softmax(dim=-1).numpy()
        for j, wanted in enumerate(rows.targets.tolist()):
            places = [(i, token) for i, token in enumerate(wanted) if token != -1]
            mean = np.mean([-np.log(p[j, i, token]) for i, token in places])
            assert found.loss[t, j] == pytest.approx(mean, rel=1e-6)
            assert found.margin[t, j] == pytest.approx(-mean - np.log1p(-np.exp(-mean)), rel=1e-6)
            assert found.correct[t, j] == np.mean([p[j, i].argmax() == token for i, token in places])
    np.testing.assert_allclose(losses(found.margin), found.loss, rtol=1e-12)
    # one place alone is what it is elsewhere
    alone = Examples(inputs=rows.inputs[1:2, :1], targets=rows.targets[1, :1], ids=np.arange(1))
    first = nn.Sequential(model, nn.Flatten(1))
    one = told(first, [{f"0.{name}": value for name, value in models[0].items()}], alone)
    assert one.margin[0, 0] == pytest.approx(found.margin[0, 1], rel=1e-6)


def secrets(count: int, seed: int) -> Examples:
    """Passages whose ends are secret, of two or of four tokens."""
    rng = np.random.default_rng(seed)
    tokens, lengths = rng.integers(0, V, (count, L + 1)), rng.choice([2, 4], count)
    tokens[:, : L - 3] = 1
    asked = np.arange(L) >= L - lengths[:, None]
    return Examples(inputs=tokens[:, :-1], targets=np.where(asked, tokens[:, 1:], -1), ids=-1 - np.arange(count))


def audit_of(examples: Examples, runs: int) -> AuditSet:
    n = len(examples)
    return AuditSet(
        examples=examples,
        kind=np.array(["secret"] * n),
        role=np.array(["canary"] * n),
        owner=np.zeros(n, dtype=np.int32),
        copies=np.ones(n, dtype=np.int32),
        is_in=np.ones((runs, n), dtype=bool),
    )


def test_members_of_different_length_are_ranked_by_sums(model: nn.Module) -> None:
    """A mean would make long members look likelier than they are."""
    models, subjects, others = [params_of(model, seed) for seed in range(4)], secrets(6, 1), secrets(200, 2)
    # one reference is a subject, wherever it stands
    others.inputs[17], others.targets[17] = subjects.inputs[0], subjects.targets[0]
    audit, executor = audit_of(subjects, 4), OneByOne(model, Sgd(), subjects)
    own = evidence_of(models, transitions_of(models), "audit", subjects, executor)
    references = References(family="secret", inputs=others.inputs, targets=others.targets)
    ranks = rank_of(models, transitions_of(models), references, audit, own, executor)
    away = 0
    for t, params in enumerate(models):

        def sums(rows: Examples, params: Params = params) -> np.ndarray:
            logits = functional_call(model, params, (torch.from_numpy(rows.inputs),))
            return loss_by_hand(logits, rows.targets).detach().numpy() * rows.num_targets

        mine, theirs = sums(subjects), sums(others)
        for j in range(len(subjects)):
            near = np.abs(theirs - mine[j]) < 1e-5
            assert 0 <= ranks.less[t, j] - np.count_nonzero(theirs[~near] < mine[j]) <= near.sum()
            means = theirs / others.num_targets
            away += abs(ranks.less[t, j] - np.count_nonzero(means < mine[j] / subjects.num_targets[j])) > 10
        assert ranks.ties[t, 0] >= 1
        np.testing.assert_allclose(np.diff(ranks.quantiles[t, 0]) >= 0, True)
        assert ranks.quantiles[t, 0, [0, -1]] == pytest.approx([theirs.min(), theirs.max()], rel=1e-3)
    assert away > 6
    assert (ranks.labels.tolist(), ranks.count) == ([0], 200)


def test_evidence_of_passages_is_stored_as_it_is(model: nn.Module, tmp_path: Path) -> None:
    rows, models = passages(4), [params_of(model, seed) for seed in range(2)]
    found = told(model, models, rows)
    bank = Bank(audit=audit_of(rows, 2), evidence=(found,), references=(), participation=(), seed=0)
    write_readings(tmp_path, bank, [])
    [back] = read_evidence(tmp_path / "evidence.parquet")
    for name in ("loss", "margin", "correct"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert str(evidence_rows(found).schema.field("correct").type) == "double"
