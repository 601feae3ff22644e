"""Tests of `fedmem/signals/tracin.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

import fedmem
from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Examples
from fedmem.modalities.loss import example_losses
from fedmem.signals._influence_targets import InfluenceTargets
from fedmem.signals.tracin import TracIn
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

ROWS = {"kind": "sgd", "lr": 1e-3, "epochs": 3, "batch_size": 1000}


def squares(bench: Bench, seed: int) -> np.ndarray:
    parts = bench.context(bench.transition(bench.params(seed))).squared_gradients()
    return np.asarray(np.sum(list(parts.values()), axis=0)[0])


def test_sum_over_rounds_weighs_cohort_steps_and_copies() -> None:
    injections = [
        {"kind": "random_pattern", "per_client": 1, "copies": 3},
        {"kind": "typical", "per_client": 1, "start": 3},
    ]
    bench = Bench(
        injections=injections,
        partition={"kind": "dirichlet", "alpha": 0.3},
        client={"kind": "sgd", "lr": 0.2, "decay": 0.5, "epochs": 2, "batch_size": 8},
    )
    audit, signal = bench.federation.audit, TracIn()
    copies = np.where(audit.kind == "random_pattern", 3, 1)
    expected = np.zeros(len(audit))
    state = signal.start(bench.context(bench.transition(bench.params())), 0)
    for number, clients in ((1, (0, 2)), (3, (2, 4))):
        before = bench.params(number)
        transition = bench.transition(
            bench.params(9), before=before, round_number=number, clients=clients, level="global"
        )
        state = signal.update(state, bench.context(transition), 0)
        sizes = {client: len(bench.federation.rows(0, client, number)) for client in clients}
        for client, size in sizes.items():
            distance = 2 * -(-size // 8) * 0.2 * 0.5 ** (number - 1)
            share = size / sum(sizes.values())
            is_counted = (audit.owner == client) & ((audit.kind != "typical") | (number == 3))
            expected += share * distance * copies / size * squares(bench, number) * is_counted
    found = signal.values_of(state, bench.context(bench.transition(bench.params())))["tracin"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (found > 0).any()
    assert (found[~np.isin(audit.owner, (0, 2, 4))] == 0).all()


def test_a_client_has_its_last_round_alone() -> None:
    bench = Bench()
    signal, context = TracIn(), bench.context(bench.transition(bench.params(), round_number=0))
    state = signal.update(signal.start(context, 0), context, 0)
    assert (state["sum"] == 0).all()
    turns = [
        bench.context(bench.transition(bench.params(), before=bench.params(seed), level="local", client=1))
        for seed in (1, 2)
    ]
    both = signal.update(signal.update(state, turns[0], 0), turns[1], 0)["sum"]
    np.testing.assert_array_equal(both, signal.update(state, turns[1], 0)["sum"])
    assert np.isfinite(both).tolist() == (bench.federation.audit.owner == 1).tolist()
    assert (both[np.isfinite(both)] > 0).all()


@pytest.mark.parametrize("weighting", ["fedavg", "fedmedian"])
def test_uniform_weights_are_those_of_the_strategy(weighting: str) -> None:
    bench = Bench(strategy={"kind": weighting}, partition={"kind": "dirichlet", "alpha": 0.3})
    sizes = np.array([len(bench.federation.rows(0, client, 2)) for client in (0, 1)])
    shares = sizes / sizes.sum()
    both = bench.context(bench.transition(bench.params(), clients=(0, 1)))
    if both.weighting == "uniform":
        shares = np.array([0.5, 0.5])
    signal = TracIn()
    of_all = signal.update(signal.start(both, 0), both, 0)["sum"]
    for client in (0, 1):
        alone = bench.context(bench.transition(bench.params(), level="local", client=client))
        own = signal.update(signal.start(alone, 0), alone, 0)["sum"]
        holds = bench.federation.audit.owner == client
        np.testing.assert_allclose(of_all[holds], shares[client] * own[holds], rtol=1e-12)


def test_all_rows_of_a_full_batch_sum_to_the_fall_of_a_loss() -> None:
    rate = 1e-5
    bench = Bench(client={"kind": "sgd", "lr": rate, "epochs": 1, "batch_size": 1000})
    federation, signal, client = bench.federation, TracIn(targets=9), 1
    targets = InfluenceTargets.draw(federation, 9).examples(federation)
    before = {name: value.double() for name, value in bench.params(3, scale=0.3).items()}
    context = bench.context(bench.transition(bench.params(), before=before, level="local", client=client))
    on = signal.values_of(signal.update(signal.start(context, 0), context, 0), context)["tracin_on"]
    audit = federation.audit
    assert (np.isnan(on).all(axis=1) == (audit.owner != client)).all()
    rows = federation.rows(0, client, 2)
    own = np.flatnonzero((audit.owner == client) & audit.is_in[0])
    others = federation.store.take(rows[~np.isin(rows, federation.trained_rows[np.isin(audit.subject, own)])])
    assert len(rows) == len(own) + len(others)
    assert len(own)
    total = on[own].sum(axis=0) + rate / len(rows) * context.gradient_products(before, others, targets).sum(axis=0)

    def losses(params: Params, examples: Examples) -> Tensor:
        outputs = functional_call(bench.reader._network, params, (torch.from_numpy(examples.inputs).double(),))
        return example_losses(outputs, torch.from_numpy(examples.targets))

    leaves = {name: value.clone().requires_grad_() for name, value in before.items()}
    slopes = torch.autograd.grad(losses(leaves, federation.store.take(rows)).mean(), list(leaves.values()))
    after = {name: value - rate * slope for (name, value), slope in zip(before.items(), slopes, strict=True)}
    fall = (losses(before, targets) - losses(after, targets)).numpy()
    np.testing.assert_allclose(total, fall, rtol=1e-3)
    for broken in (-total, total * len(rows), total - on[own].sum(axis=0)):
        assert not np.allclose(broken, fall, rtol=1e-3)


def test_another_package_has_the_same_influence(tmp_path: Path) -> None:
    """TracInCP of captum sums rate × inner products over checkpoints; here a rate is Σ η / n_k."""
    influence = pytest.importorskip("captum.influence", reason="captum is not installed")
    bench = Bench(client={"kind": "sgd", "lr": 0.2, "epochs": 2, "batch_size": 8})
    federation, signal, client = bench.federation, TracIn(targets=6), 2
    targets = InfluenceTargets.draw(federation, 6).examples(federation)
    context = bench.context(bench.transition(bench.params()))
    state = signal.start(context, 0)
    for number in (1, 2):
        before = {name: value.double() for name, value in bench.params(number, scale=0.3).items()}
        turn = bench.context(bench.transition(before, before=before, round_number=number, clients=(client,)))
        state = signal.update(state, turn, 0)
        torch.save(before, tmp_path / f"{number}.pt")
    own = np.flatnonzero(federation.audit.owner == client)
    size = len(federation.rows(0, client, 1))
    network = bench.reader._network

    def load(model: nn.Module, path: str) -> float:
        model.load_state_dict(torch.load(path))
        return 2 * -(-size // 8) * 0.2 / size

    def tensors(examples: Examples) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(examples.inputs).double(), torch.from_numpy(examples.targets)

    peer = influence.TracInCP(
        network,
        TensorDataset(*tensors(federation.audit.examples.take(own))),
        [str(tmp_path / f"{number}.pt") for number in (1, 2)],
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
    )
    found = signal.values_of(state, context)
    np.testing.assert_allclose(peer.influence(tensors(targets)).numpy().T, found["tracin_on"][own], rtol=1e-9)
    np.testing.assert_allclose(peer.self_influence().numpy(), found["tracin"][own], rtol=1e-9)


@pytest.mark.slow
def test_small_full_batch_steps_agree_with_exact_leave_one_out(tmp_path: Path) -> None:
    """To first order in the rate, TracIn is what leaving the example out of one participation changes.

    Outputs are linear here: a hidden unit that turns on during the steps may change one value by a tenth.
    """
    scenario = tiny(
        runs=2,
        rounds=1,
        bootstrap=20,
        model={"kind": "logistic"},
        client=ROWS,
        observe={"every": 1, "levels": ["local", "global"]},
        probes=[{"kind": "leave_one_out"}],
        signals=[{"kind": "tracin"}],
    )
    run = fedmem.read(fedmem.run(scenario, out=tmp_path))
    signals = run.signals
    signals = signals[(signals.name == "tracin") & (signals["round"] == 1)]
    exact = run.measurements
    exact = exact[(exact.metric == "participation_loss") & (exact.scope == "run")]
    for level in ("local", "global"):
        one = signals[signals.level == level].set_index(["run", "client", "subject"]).value
        some = exact[exact.level == level]
        truth = some.value.to_numpy()
        found = one.loc[list(zip(some.run, some.client, some.subject.astype(int), strict=True))].to_numpy()
        assert len(truth) > 5
        np.testing.assert_allclose(found, truth, rtol=0.02, atol=3e-6)
        assert np.corrcoef(found, truth)[0, 1] > 0.999
