"""Tests of `fedmem/signals/fed_influence.py`: the recursion against real training without each client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.errors import ComponentError, ScenarioError
from fedmem.signals.fed_influence import FedInfluence
from tests.signals.cohort_helpers import mean_of, round_of, utility
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

COHORTS = [(0, 1, 2, 3, 4), (0, 2, 3), (1, 4)]


def make(lr: float = 0.02, **more: Any) -> Bench:
    """Logistic regression with steps on all rows, so that the Gauss–Newton matrix is the Hessian."""
    client = {"kind": "sgd", "lr": lr, "epochs": 3, "batch_size": 1000, "weight_decay": 0.05}
    settings: dict[str, Any] = {"model": {"kind": "logistic"}, "client": client, "partition": {"kind": "dirichlet"}}
    return Bench(**{**settings, **more})


def locally(bench: Bench, start: Params, client: int) -> Params:
    """Steps of gradient descent on all rows of a client, by a loop in float64."""
    store, rows = bench.federation.store, bench.federation.rows(0, client, 1)
    network = bench.reader._network
    inputs, targets = torch.from_numpy(store.inputs[rows]).double(), torch.from_numpy(store.targets[rows])

    def loss(params: Params) -> torch.Tensor:
        outputs = functional_call(network, params, (inputs,))
        decay = sum(value.square().sum() for value in params.values()) * 0.05 / 2
        return torch.nn.functional.cross_entropy(outputs, targets) + decay

    params = {name: value.double() for name, value in start.items()}
    for _ in range(3):
        slopes: Any = grad(loss)(params)
        params = {name: value - bench.scenario.client.lr * slopes[name] for name, value in params.items()}  # type: ignore[attr-defined]
    return params


def single(params: Params) -> Params:
    return {name: value.float() for name, value in params.items()}


def train(bench: Bench, without: int = -1) -> list[tuple[Params, dict[int, Params], Params]]:
    """Of each round the model before, the models sent, and the aggregate."""
    rounds, model = [], {name: value.double() for name, value in bench.params(scale=0.1).items()}
    sizes = [len(bench.federation.rows(0, k, 1)) for k in range(5)]
    for cohort in COHORTS:
        members = [k for k in cohort if k != without]
        sent = {k: locally(bench, model, k) for k in members}
        after = mean_of(list(sent.values()), [sizes[k] for k in members])
        rounds.append((model, sent, after))
        model = after
    return rounds


def flat(params: Params) -> FloatArray:
    return np.concatenate([value.double().numpy().ravel() for value in params.values()])


def recursion(bench: Bench, signal: FedInfluence, rounds: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """The state after these rounds, and the last context."""
    state, context = None, None
    for number, (before, sent, after) in enumerate(rounds, 1):
        sizes = {k: len(bench.federation.rows(0, k, 1)) for k in sent}
        models = {k: single(model) for k, model in sent.items()}
        context = round_of(bench, models, before=single(before), sizes=sizes, after=single(after), round_number=number)
        state = signal.start(context, 0) if state is None else state
        state = signal.update(state, context, 0)
    assert state is not None
    return state, context


@pytest.mark.parametrize("matrix", ["full", "diagonal"])
def test_small_moves_are_those_of_training_without_the_client(matrix: Any) -> None:
    bench = make()
    rounds = train(bench)
    state, context = recursion(bench, FedInfluence(matrix=matrix), rounds)
    last = rounds[-1][2]
    truth = np.stack([flat(train(bench, without=k)[-1][2]) - flat(last) for k in range(5)])
    # the diagonal ignores how parameters depend on each other
    tolerance = 0.01 if matrix == "full" else 0.25
    assert np.linalg.norm(state["shift"] - truth) < tolerance * np.linalg.norm(truth)
    values = FedInfluence(matrix=matrix).values_of(state, context)["fed_influence"].T.reshape(2, 5, -1)
    for client in range(5):
        expected = utility(bench, single(last)) - utility(bench, single(train(bench, without=client)[-1][2]))
        assert values[1, client].mean() == pytest.approx(expected[1].mean(), rel=4 * tolerance, abs=1e-5)


@pytest.mark.parametrize("broken", ["sign", "rate"])
def test_a_broken_response_misses_it(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    bench = make(lr=0.1)
    rounds = train(bench)
    truth = np.stack([flat(train(bench, without=k)[-1][2]) - flat(rounds[-1][2]) for k in range(5)])

    def error() -> float:
        state, _ = recursion(bench, FedInfluence(matrix="full"), rounds)
        return float(np.linalg.norm(state["shift"] - truth) / np.linalg.norm(truth))

    right = error()
    real = FedInfluence._response

    def changed(self: FedInfluence, context: Any, sender: Any) -> Any:
        response = real(self, context, sender)
        return (lambda shift: -response(shift)) if broken == "sign" else (lambda shift: shift)

    monkeypatch.setattr(FedInfluence, "_response", changed)
    assert error() > 3 * right


def test_copies_of_a_row_count_as_often() -> None:
    """The matrix of distinct rows with their copies as weights is that of all rows."""
    injections = [{"kind": "random_pattern", "per_client": 2, "copies": 5}]
    bench = make(injections=injections)
    rows = bench.federation.rows(0, 1, 1)
    assert len(np.unique(rows)) < len(rows)
    rounds = train(bench)
    state, _ = recursion(bench, FedInfluence(matrix="full"), rounds)
    truth = np.stack([flat(train(bench, without=k)[-1][2]) - flat(rounds[-1][2]) for k in range(5)])
    assert np.linalg.norm(state["shift"] - truth) < 0.01 * np.linalg.norm(truth)


def test_a_client_that_never_took_part_has_no_value() -> None:
    bench = make()
    before = bench.params()
    sent = {0: bench.params(1), 1: bench.params(2)}
    context = round_of(bench, sent, before=before)
    signal = FedInfluence()
    state = signal.update(signal.start(context, 0), context, 0)
    values = signal.values_of(state, context)["fed_influence"].T.reshape(2, 5, -1)
    assert not values[:, 2:].any()
    assert values[1, :2].any(axis=1).all()
    # without the other, each would have been the aggregate alone
    whole = utility(bench, context.transitions[0].kept)[1]
    np.testing.assert_allclose(values[1, 0], whole - utility(bench, sent[1])[1], atol=2e-5)
    alone = round_of(bench, {3: bench.params(3)}, before=before)
    state = signal.update(signal.start(alone, 0), alone, 0)
    own = signal.values_of(state, alone)["fed_influence"].T.reshape(2, 5, -1)
    np.testing.assert_allclose(own[1, 3], (utility(bench, bench.params(3)) - utility(bench, before))[1], atol=2e-5)


def test_skipped_rounds_are_refused() -> None:
    bench, signal = make(), FedInfluence()
    contexts = {n: round_of(bench, {0: bench.params(1)}, before=bench.params(), round_number=n) for n in (1, 2, 3)}
    state = signal.update(signal.start(contexts[1], 0), contexts[1], 0)
    with pytest.raises(ComponentError, match=r"did not see round 2.*every: 1"):
        signal.update(state, contexts[3], 0)
    with pytest.raises(ComponentError, match="first saw round 2"):
        signal.start(contexts[2], 0)
    with pytest.raises(ComponentError, match="skips rounds"):
        FedInfluence(every=2)


def test_a_model_that_has_diverged_has_unknown_values() -> None:
    bench, signal = make(), FedInfluence()
    broken = {name: torch.full_like(value, torch.nan) for name, value in bench.params().items()}
    first = round_of(bench, {0: broken, 1: bench.params(1)}, before=bench.params())
    state = signal.update(signal.start(first, 0), first, 0)
    values = signal.values_of(state, first)["fed_influence"].T.reshape(2, 5, -1)
    assert np.isnan(values[:, :2]).all()
    second = round_of(bench, {1: bench.params(2), 2: bench.params(1)}, before=broken, round_number=2)
    state = signal.update(state, second, 0)
    values = signal.values_of(state, second)["fed_influence"].T.reshape(2, 5, -1)
    assert np.isnan(values[:, 1]).all()


def test_scenarios_without_one_network_or_mean_are_refused() -> None:
    signals = [{"kind": "fed_influence"}]
    with pytest.raises(ScenarioError, match="layers of its own"):
        tiny(signals=signals, client={"kind": "fedper"})
    with pytest.raises(ScenarioError, match="weighted mean"):
        tiny(signals=signals, strategy={"kind": "fedmedian"})
    each, others = FedInfluence().passes_in(make().federation)
    assert (each, others > 0) == (6.0, True)
