"""Made cohorts for strategies, and what becomes of them by messages and by the rule."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

import fedmem.strategies
from fedmem.contracts.arrays import Params
from fedmem.engines._flower import FIRST_NODE, LocalGrid, local_record
from fedmem.observation.observed import params_of
from fedmem.strategies._rule import Round, RuleStrategy, Services

SHAPES = {"layer.weight": (3, 4), "layer.bias": (3,)}

CLIENTS = 9
"""Clients of the made federations, of whom cohorts are some."""

LR = 0.5
"""The learning rate that they report."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What came back to one run in one round: models, numbers of examples, losses, steps, and who sent them."""

    sent: list[Params]
    sizes: list[int]
    losses: list[float]
    steps: list[float]
    who: list[int]

    def at(self, places: Sequence[int]) -> Cohort:
        """The clients at these places, in this order."""
        return Cohort(**{name: [values[k] for k in places] for name, values in vars(self).items()})

    def sending(self, sent: list[Params]) -> Cohort:
        """The same clients with other models."""
        return replace(self, sent=sent)


def every_strategy() -> dict[str, Any]:
    """One of each kind, with its defaults."""
    found = {}
    for module in pkgutil.iter_modules(fedmem.strategies.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"fedmem.strategies.{module.name}")
            for part in vars(loaded).values():
                if isinstance(part, type) and is_dataclass(part) and part.__module__ == loaded.__name__:
                    found[module.name] = part()
    assert found
    return found


def models(rng: np.random.Generator, count: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> list[Params]:
    """Standard normal weights."""
    return [
        {name: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def cohort(rng: np.random.Generator, count: int) -> Cohort:
    """Clients of various sizes and losses, in the order of their numbers."""
    sent, sizes = models(rng, count), rng.integers(1, 90, count).tolist()
    return Cohort(
        sent=sent,
        sizes=sizes,
        losses=rng.uniform(0.1, 3.0, count).tolist(),
        steps=[1.0 + size % 7 for size in sizes],
        who=np.sort(rng.permutation(CLIENTS)[:count]).tolist(),
    )


def by_messages(
    strategy: Any, rounds: Sequence[Cohort], before: Params, introduced: bool = True, run: int = 0
) -> list[Params]:
    """What Flower's own call sequence makes of these replies, round after round; `run` decides what a rule draws."""
    flower = strategy.make(len(rounds[0].who))
    services = flower.services if isinstance(flower, RuleStrategy) else Services()
    if introduced:
        services.nodes = range(FIRST_NODE, FIRST_NODE + CLIENTS)
    arrays, after = local_record(before), []
    for number, there in enumerate(rounds, start=1):
        services.generators = partial(generators, run, number)
        grid = LocalGrid(CLIENTS, lambda messages: [])
        messages = list(flower.configure_train(number, arrays, ConfigRecord(), grid))
        by_node = {message.metadata.dst_node_id: message for message in messages}
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": local_record(model),
                        "metrics": MetricRecord({"num-examples": size, "train_loss": loss}),
                    }
                ),
                reply_to=by_node[FIRST_NODE + client],
            )
            for model, size, loss, client in zip(there.sent, there.sizes, there.losses, there.who, strict=True)
        ]
        reports = zip(there.who, there.steps, strict=True)
        services.reports = {FIRST_NODE + client: {"steps": steps, "lr": LR} for client, steps in reports}
        aggregated, _ = flower.aggregate_train(number, replies)
        assert isinstance(aggregated, ArrayRecord)
        arrays = aggregated
        after.append(params_of(aggregated))
    return after


def generators(run: int, number: int) -> tuple[np.random.Generator]:
    """The same for a bank of one run."""
    return (drawn(run, number),)


def drawn(run: int, number: int) -> np.random.Generator:
    """What a rule draws from in one round of one run."""
    return np.random.default_rng([run, number])


def stacked(number: int, runs: Sequence[Cohort], before: Params) -> Round:
    """What the rule is given of R runs with cohorts of one size."""
    return Round(
        number=number,
        before=before,
        sent={name: torch.stack([torch.stack([m[name] for m in run.sent]) for run in runs]) for name in before},
        weights=torch.tensor([run.sizes for run in runs], dtype=torch.float64),
        present=torch.ones((len(runs), len(runs[0].who)), dtype=torch.bool),
        clients=torch.tensor([run.who for run in runs]),
        report={
            "loss": torch.tensor([run.losses for run in runs], dtype=torch.float64),
            "steps": torch.tensor([run.steps for run in runs], dtype=torch.float64),
            "lr": torch.tensor([[LR] * len(run.who) for run in runs], dtype=torch.float64),
        },
        generators=lambda: tuple(drawn(run, number) for run in range(len(runs))),
    )


def by_rule(strategy: Any, rounds: Sequence[Sequence[Cohort]], before: Sequence[Params]) -> list[Params]:
    """The rule on R runs at once: `rounds` holds the cohorts of all runs, round after round."""
    model = {name: torch.stack([b[name] for b in before]) for name in before[0]}
    state, after = strategy.state(model, CLIENTS), []
    for number, runs in enumerate(rounds, start=1):
        model, state = strategy.rule(state, stacked(number, runs, model))
        after.append(model)
    return after


def one_round(strategy: Any, there: Cohort, before: Params) -> Params:
    """The rule in the first round of one run."""
    return {name: value[0] for name, value in by_rule(strategy, [[there]], [before])[0].items()}


def flat(model: Params) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All weights of a model, end to end."""
    return np.concatenate([value.double().numpy().ravel() for value in model.values()])
