"""One battery for every strategy in the folder: the rule against the messages, and what any aggregation must keep."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedMedian

import strategies
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process, local_record
from fedmem.observe import params_of
from fedmem.types import Params
from strategies._rule import ALONE, Round
from strategies.fedavgm import FederatedMomentum
from strategies.fedprox import FederatedProximal
from strategies.krum import Krum
from strategies.trimmed_mean import TrimmedMean

SHAPES = {"layer.weight": (3, 4), "layer.bias": (3,)}


def every_strategy() -> list[Any]:
    found = []
    for module in pkgutil.iter_modules(strategies.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"strategies.{module.name}")
            found += [c() for c in vars(loaded).values() if is_dataclass(c) and c.__module__ == loaded.__name__]
    assert found
    return found


RULES = [strategy for strategy in every_strategy() if hasattr(strategy, "rule")]
# settings that take another path through a rule than the defaults
RULES += [
    FederatedMomentum(momentum=0.0),
    FederatedMomentum(momentum=0.0, eta=0.5),
    FederatedMomentum(momentum=0.5, eta=0.7),
    FederatedProximal(mu=0.0),
    Krum(f=1),
    Krum(f=1, keep=3),
    TrimmedMean(beta=0.0),
    TrimmedMean(beta=0.4),
]


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def models(rng: np.random.Generator, count: int) -> list[Params]:
    return [
        {name: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def by_messages(strategy: Any, rounds: list[tuple[list[Params], list[int]]], before: Params) -> list[Params]:
    """What Flower's own call sequence makes of these replies, round after round."""
    flower = strategy.make(len(rounds[0][0]))
    arrays, after = local_record(before), []
    for number, (sent, sizes) in enumerate(rounds, start=1):
        grid = LocalGrid(len(sent), lambda messages: [])
        messages = list(flower.configure_train(number, arrays, ConfigRecord(), grid))
        by_node = {message.metadata.dst_node_id: message for message in messages}
        replies = [
            Message(
                RecordDict({"arrays": local_record(model), "metrics": MetricRecord({"num-examples": size})}),
                reply_to=by_node[FIRST_NODE + k],
            )
            for k, (model, size) in enumerate(zip(sent, sizes, strict=True))
        ]
        aggregated, _ = flower.aggregate_train(number, replies)
        assert isinstance(aggregated, ArrayRecord)
        arrays = aggregated
        after.append(params_of(aggregated))
    return after


def by_rule(
    strategy: Any, rounds: list[tuple[list[list[Params]], list[list[int]]]], before: list[Params]
) -> list[Params]:
    """The rule on R runs at once."""
    model = {name: torch.stack([b[name] for b in before]) for name in SHAPES}
    state, after = strategy.state(model, 0), []
    for number, (sent, sizes) in enumerate(rounds, start=1):
        places = len(sent[0])
        model, state = strategy.rule(
            state,
            Round(
                number=number,
                before=model,
                sent={name: torch.stack([torch.stack([m[name] for m in run]) for run in sent]) for name in SHAPES},
                weights=torch.tensor(sizes, dtype=torch.float64),
                present=torch.ones((len(sent), places), dtype=torch.bool),
                clients=torch.arange(places).repeat(len(sent), 1),
            ),
        )
        after.append(model)
    return after


@pytest.mark.parametrize("strategy", RULES, ids=str)
@pytest.mark.parametrize("cohort", [1, 2, 5, 6])
def test_the_rule_on_three_runs_equals_the_messages_of_each(strategy: Any, cohort: int) -> None:
    rng = np.random.default_rng(cohort)
    before = models(rng, 3)
    rounds = [
        ([models(rng, cohort) for _ in range(3)], [rng.integers(1, 90, cohort).tolist() for _ in range(3)])
        for _ in range(3)
    ]
    together = by_rule(strategy, rounds, before)
    for run in range(3):
        alone = by_messages(strategy, [(sent[run], sizes[run]) for sent, sizes in rounds], before[run])
        for stacked, single in zip(together, alone, strict=True):
            for name in SHAPES:
                assert single[name].dtype == torch.float32
                assert torch.equal(stacked[name][run], single[name])


@pytest.mark.parametrize("strategy", RULES, ids=str)
def test_permuting_the_cohort_changes_nothing(strategy: Any) -> None:
    rng = np.random.default_rng(0)
    before, sent, sizes = models(rng, 1), models(rng, 5), [3, 50, 7, 20, 11]
    order = [4, 2, 0, 3, 1]
    one = by_rule(strategy, [([sent], [sizes])], before)[0]
    other = by_rule(strategy, [([[sent[k] for k in order]], [[sizes[k] for k in order]])], before)[0]
    for name in SHAPES:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["fedavg", "fedmedian", "fedprox", "fedavgm", "trimmed_mean", "krum"])
def test_identical_models_come_back_unchanged(kind: str) -> None:
    strategy = next(s for s in RULES if type(s).__module__ == f"strategies.{kind}")
    rng = np.random.default_rng(1)
    model = models(rng, 1)[0]
    after = by_rule(strategy, [([[model] * 4], [[1, 2, 3, 4]])], models(rng, 1))[0]
    for name in SHAPES:
        torch.testing.assert_close(after[name][0], model[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["fedavg", "fedmedian", "fedprox", "trimmed_mean", "krum"])
def test_translating_every_model_translates_the_aggregate(kind: str) -> None:
    strategy = next(s for s in RULES if type(s).__module__ == f"strategies.{kind}")
    rng = np.random.default_rng(2)
    before, sent, sizes = models(rng, 1), models(rng, 5), [1, 2, 3, 4, 5]
    moved = [{name: value + 3.0 for name, value in model.items()} for model in sent]
    plain = by_rule(strategy, [([sent], [sizes])], before)[0]
    shifted = by_rule(strategy, [([moved], [sizes])], before)[0]
    for name in SHAPES:
        torch.testing.assert_close(shifted[name], plain[name] + 3.0, rtol=1e-5, atol=1e-5)


def test_one_outlier_moves_the_mean_by_its_share_and_the_median_within_the_others() -> None:
    rng = np.random.default_rng(3)
    before, sent, sizes = models(rng, 1), models(rng, 5), [10, 20, 30, 25, 15]
    wild = [*sent[:4], {name: torch.full_like(value, 1e6) for name, value in sent[4].items()}]
    mean = next(s for s in RULES if type(s).__module__ == "strategies.fedavg")
    honest = by_rule(mean, [([sent], [sizes])], before)[0]
    moved = by_rule(mean, [([wild], [sizes])], before)[0]
    median = by_rule(
        next(s for s in RULES if type(s).__module__ == "strategies.fedmedian"), [([wild], [sizes])], before
    )
    for name in SHAPES:
        expected = 0.15 * (1e6 - sent[4][name])
        torch.testing.assert_close(moved[name][0] - honest[name][0], expected, rtol=1e-4, atol=0.1)
        others = torch.stack([model[name] for model in sent[:4]])
        assert bool(((median[0][name][0] >= others.amin(0)) & (median[0][name][0] <= others.amax(0))).all())


@pytest.mark.parametrize(("ours", "flower"), [("fedavg", FedAvg), ("fedmedian", FedMedian), ("fedavgm", FedAvgM)])
def test_the_rule_agrees_with_flowers_class(ours: str, flower: type) -> None:
    """The message path of these is Flower's class, which the first test compares with the rule, bit for bit."""
    strategy = next(s for s in RULES if type(s).__module__ == f"strategies.{ours}")
    assert type(strategy.make(4)) is flower


def test_uniform_weighting_ignores_sizes_and_size_weighting_does_not() -> None:
    rng = np.random.default_rng(4)
    before, sent = models(rng, 1), models(rng, 3)
    uniform = strategies_fedavg("uniform")
    for name in SHAPES:
        mean = torch.stack([model[name] for model in sent]).mean(0)
        after = by_rule(uniform, [([sent], [[1, 100, 5]])], before)[0][name][0]
        torch.testing.assert_close(after, mean)
        by_size = by_rule(strategies_fedavg("size"), [([sent], [[1, 100, 5]])], before)[0][name][0]
        assert not torch.allclose(by_size, mean, rtol=1e-2)


def strategies_fedavg(weighting: str) -> Any:
    from strategies.fedavg import FederatedAveraging

    return FederatedAveraging(weighting=weighting)  # type: ignore[arg-type]


def test_adam_follows_the_published_recursion() -> None:
    """Two rounds of Reddi et al. (2021), algorithm 2, in plain numpy with float64."""
    from strategies.fedadam import FederatedAdam

    rng = np.random.default_rng(5)
    adam = FederatedAdam(eta=0.1, beta_1=0.8, beta_2=0.95, tau=1e-2)
    before = models(rng, 1)
    rounds = [([models(rng, 2)], [[30, 10]]) for _ in range(2)]
    after = by_rule(adam, rounds, before)
    for name in SHAPES:
        w = before[0][name].double().numpy()
        m, v = np.zeros_like(w), np.full_like(w, 1e-4)
        for (sent, _), got in zip(rounds, after, strict=True):
            d = 0.75 * sent[0][0][name].double().numpy() + 0.25 * sent[0][1][name].double().numpy() - w
            m, v = 0.8 * m + 0.2 * d, 0.95 * v + 0.05 * d**2
            w = w + 0.1 * m / (np.sqrt(v) + 1e-2)
            np.testing.assert_allclose(got[name][0].numpy(), w, rtol=1e-4, atol=1e-5)


def test_flowers_adam_is_not_the_published_one() -> None:
    """Why ours exists: Flower's class corrects the bias with the round plus one and widens to float64."""
    from flwr.serverapp.strategy import FedAdam

    from strategies.fedadam import FederatedAdam

    rng = np.random.default_rng(6)
    before, sent = models(rng, 1)[0], models(rng, 2)

    class Stock:
        def make(self, cohort_size: int) -> Any:
            return FedAdam(**ALONE, eta=0.1)

    ours = by_messages(FederatedAdam(eta=0.1), [(sent, [1, 1])], before)[0]
    theirs = by_messages(Stock(), [(sent, [1, 1])], before)[0]
    assert theirs["layer.bias"].dtype == torch.float64
    assert not torch.allclose(ours["layer.bias"], theirs["layer.bias"].float(), rtol=0.05)


@pytest.mark.parametrize("strategy", RULES, ids=str)
@pytest.mark.parametrize("absent", [(3,), (0,), (1, 2), (0, 2, 3)])
def test_absent_clients_do_not_count(strategy: Any, absent: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    sent, before = models(rng, 4), {name: torch.zeros((1, *shape)) for name, shape in SHAPES.items()}
    stacked = {name: torch.stack([m[name] for m in sent])[None] for name in SHAPES}
    there = [k for k in range(4) if k not in absent]
    present = torch.tensor([[k in there for k in range(4)]])

    def aggregated(places: list[int], present: torch.Tensor) -> Params:
        round = Round(
            number=1,
            before=before,
            sent={name: value[:, places] for name, value in stacked.items()},
            weights=torch.tensor([[4.0, 3.0, 2.0, 9.0]], dtype=torch.float64)[:, places],
            present=present,
            clients=torch.where(present, torch.tensor([places]), -1),
        )
        after, _ = strategy.rule(strategy.state(before, 4), round)
        return after  # type: ignore[no-any-return]

    masked, alone = aggregated([0, 1, 2, 3], present), aggregated(there, present[:, there])
    for name in SHAPES:
        assert torch.equal(masked[name], alone[name])


@pytest.mark.parametrize("strategy", RULES, ids=str)
def test_a_run_without_anybody_gives_shapes_and_no_error(strategy: Any) -> None:
    """Beside runs that have a cohort; the engine keeps the model of such a run."""
    rng = np.random.default_rng(8)
    before = {name: torch.stack([m[name] for m in models(rng, 2)]) for name in SHAPES}
    sent = {name: value[:, None].repeat(1, 2, *(1,) * (value.ndim - 1)) for name, value in before.items()}
    present = torch.tensor([[True, True], [False, False]])
    clients = torch.tensor([[0, 1], [-1, -1]])
    round = Round(number=1, before=before, sent=sent, weights=present.double(), present=present, clients=clients)
    state = strategy.state(before, 3)
    strategy.offer(state, clients)
    after, _ = strategy.rule(state, round)
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert torch.isfinite(after[name][0]).all()


@pytest.mark.parametrize("strategy", RULES, ids=str)
def test_what_a_client_is_offered_does_not_hang_on_the_others(strategy: Any) -> None:
    before = {name: torch.ones((1, *shape)) for name, shape in SHAPES.items()}
    state = strategy.state(before, 5)
    together = strategy.offer(state, torch.tensor([[4, 1, 3]]))
    alone = strategy.offer(state, torch.tensor([[1]]))
    assert set(together) == set(alone)
    for name, value in together.items():
        assert value.shape[:2] == (1, 3)
        assert torch.equal(value[:, 1:2], alone[name])
