"""W1 to W4 as scenarios: data made by numpy from a seed, the networks of `networks.py`, plain federated averaging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from benchmarks import networks
from benchmarks.plan import Plan
from fedmem.contracts.data import Dataset, Examples
from fedmem.contracts.federation import Federation
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.modalities.texts import Texts
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import LocalWork, Task


@dataclass(frozen=True, kw_only=True)
class Blurred:
    """One random picture for each class, seen through uniform noise: in [0, 1], or of mean 0 and variance 1."""

    rows: int
    shape: tuple[int, ...]
    classes: int
    standard: bool = False
    test: int = 200

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the pictures, then the rows; float32 throughout, since there may be millions."""
        total = self.rows + self.test
        pictures = rng.random((self.classes, *self.shape), dtype=np.float32)
        targets = rng.integers(self.classes, size=total)
        inputs = rng.random((total, *self.shape), dtype=np.float32)
        inputs += pictures[targets]
        if self.standard:
            inputs -= 1
            inputs *= np.float32(6**0.5)
        else:
            inputs /= 2
        return _dataset(inputs, targets, self.rows, self.classes)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Sequences of a Markov chain over a vocabulary; targets are the sequences moved on by one."""

    rows: int
    length: int
    vocabulary: int
    test: int = 20

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the chain, then all sequences step by step."""
        total = self.rows + self.test
        chain = np.cumsum(rng.dirichlet(np.full(self.vocabulary, 0.05), size=self.vocabulary), axis=1)
        tokens = np.empty((total, self.length + 1), dtype=np.int64)
        tokens[:, 0] = rng.integers(self.vocabulary, size=total)
        for place in range(self.length):
            later = chain[tokens[:, place]] < rng.random((total, 1))
            tokens[:, place + 1] = np.minimum(later.sum(axis=1), self.vocabulary - 1)
        vocabulary = tuple(chr(ord("!") + number) for number in range(self.vocabulary))
        data = _dataset(tokens[:, :-1], tokens[:, 1:], self.rows, self.vocabulary)
        return replace(data, modality=Texts(vocabulary=vocabulary))


def _dataset(inputs: Any, targets: Any, rows: int, classes: int) -> Dataset:
    examples = Examples(inputs=inputs, targets=targets, ids=np.arange(len(inputs)))
    return Dataset(
        train=examples.take(np.arange(rows)),
        test=examples.take(np.arange(rows, len(inputs))),
        num_classes=classes,
        modality=modality_of_shape(inputs.shape[1:]),
    )


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of `networks.py` that is trained one client after the other, or on a GPU as a stack."""

    stackable: ClassVar[bool] = False
    stackable_on_gpu: ClassVar[bool] = True

    kind_of_network: Literal["cnn"]
    sizes: Mapping[str, Any] = field(hash=False)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network."""
        return networks.build({"kind": self.kind_of_network, **self.sizes})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A scenario, and the network that others train in its place. `gigaflops` is the arithmetic of one round."""

    name: str
    network: Mapping[str, Any]
    settings: Mapping[str, Any]
    rounds: int
    gigaflops: float = 0.0

    def scenario(self, *, rounds: int | None = None, runs: int | None = None, **speed: Any) -> Scenario:
        """The scenario with so many rounds and runs, computed in this way."""
        own = {"rounds": rounds or self.rounds, **({} if runs is None else {"runs": runs})}
        return Scenario(**{"name": self.name, "population": 0, **self.settings, **own, "speed": speed})


def perceptron(
    name: str = "W1", *, clients: int = 100, rows: int = 50, rounds: int = 50, test: int = 200, **more: Any
) -> Workload:
    """W1: a small network, 100 clients of 50 rows of 64 features."""
    return Workload(
        name=name,
        network={"kind": "mlp", "features": 64, "hidden": 64, "classes": 10},
        settings={
            "clients": clients,
            "dataset": Blurred(rows=clients * rows, shape=(64,), classes=10, test=test),
            "model": {"kind": "mlp", "hidden": [64]},
            "sampler": {"kind": "uniform", "size": 10},
            "client": {"kind": "sgd", "lr": 0.1, "batch_size": 10},
            **more,
        },
        rounds=rounds,
        gigaflops=0.0101,
    )


def convolutions(*, clients: int = 200, rows: int = 100, side: int = 28, cohort: int = 10) -> Workload:
    """W2: a convolutional network of 1.2 million parameters, 200 clients of 100 images."""
    sizes = {"side": side, "channels": (32, 64), "hidden": 128, "classes": 62}
    return Workload(
        name="W2",
        network={"kind": "cnn", **sizes},
        settings={
            "clients": clients,
            "dataset": Blurred(rows=clients * rows, shape=(1, side, side), classes=62, standard=True),
            "model": Network(kind_of_network="cnn", sizes=sizes),
            "sampler": {"kind": "uniform", "size": cohort},
            "client": {"kind": "sgd", "lr": 0.1, "batch_size": 20},
        },
        rounds=10,
        gigaflops=convolution_gigaflops(side) * rows * cohort,
    )


def convolution_gigaflops(side: int) -> float:
    """Of one image of W2, forward and backward: multiplications and additions; no gradient goes to the pixels."""
    one, two = (side - 2) ** 2 * 32 * 9 * 2, (side - 4) ** 2 * 64 * 32 * 9 * 2
    dense = (((side - 4) // 2) ** 2 * 64 * 128 + 128 * 62) * 2
    return (2 * one + 3 * (two + dense)) / 1e9


def characters(*, clients: int = 100, rows: int = 64, length: int = 64) -> Workload:
    """W3: a recurrent network over characters, 100 clients of 64 sequences of 64 tokens."""
    return Workload(
        name="W3",
        network={"kind": "lm", "vocabulary": 90, "embedding": 64, "hidden": 128},
        settings={
            "clients": clients,
            "dataset": Text(rows=clients * rows, length=length, vocabulary=90),
            "model": {"kind": "char_rnn", "cell": "lstm", "embedding": 64, "hidden": 128},
            "sampler": {"kind": "uniform", "size": 10},
            "client": {"kind": "sgd", "lr": 0.1, "batch_size": 8},
            "exclusion": "remove",
        },
        rounds=5,
        gigaflops=6 * 10 * rows * length * (4 * 128 * (64 + 128) + 128 * 90) / 1e9,
    )


def bank(runs: int = 64) -> Workload:
    """W4: federations of W1 that differ in coins. 40 % of the rows are in all of them, the rest in half of them.

    A federation so trains on 70 % of the rows on average, its own 70 %.
    """
    typical = {"kind": "typical", "per_client": 30}
    return perceptron("W4", runs=runs, injections=[typical], exclusion="remove")


def watched(runs: int = 64, *, observe: bool = True, signals: bool = False) -> Workload:
    """W1 in 64 runs with canaries and typical rows, looked at every five rounds at both levels.

    Each model that is looked at answers for 200 audit examples, 100 rows each for test and population, and 100
    references. What it costs is proportional to them: with the 1000 references that a scenario has by default, or with
    the accuracy on all rows of all clients (`utility` of global models), watching takes longer than training. With
    `signals`, two of them are read at every observed round.
    """
    extra: dict[str, Any] = {"injections": [{"kind": name, "per_client": 1} for name in ("random_pattern", "typical")]}
    if observe:
        extra |= {"observe": {"every": 5}}
    if signals:
        extra |= {"signals": [{"kind": "grad_norm"}, {"kind": "el2n"}]}
    # population, typical rows and fill-ins are taken from these: 48 are left for each client, and two audit examples
    return perceptron("W1_watched", rows=52, test=100, runs=runs, population=100, references=100, **extra)


def plan_of(workload: Workload) -> tuple[Plan, Federation]:
    """The plan that `fedmem` itself follows, from its records and its named streams, and the federation behind it."""
    scenario = workload.scenario()
    federation = build(scenario)
    work = LocalWork(federation, scenario.client, scenario.seed)
    shown = simulate(workload.scenario(runs=scenario.runs), federation, watch=False, runs=(0,))
    cohort: dict[int, list[int]] = {}
    for part in shown.bank.participation:
        cohort.setdefault(part.round, []).append(part.client)
    cohorts = np.array([cohort[round_number] for round_number in range(1, scenario.rounds + 1)], dtype=np.int32)
    order = [
        [
            [_ordered(work.task(run, round_number, client, {})) for client in clients]
            for round_number, clients in cohort.items()
        ]
        for run in range(scenario.runs)
    ]
    held = [
        [federation.rows(run, client, 1) for client in range(federation.num_clients)] for run in range(scenario.runs)
    ]
    plan = Plan(
        network=workload.network,
        lr=scenario.client.lr,  # type: ignore[attr-defined]
        inputs=federation.store.inputs,
        targets=federation.store.targets,
        initial={name: value.numpy() for name, value in federation.initial.items()},
        cohorts=np.broadcast_to(cohorts, (scenario.runs, *cohorts.shape)).copy(),
        batches=_padded(order),
        held=_padded(held),
    )
    return plan, federation


def _ordered(task: Task) -> Any:
    """(steps, batch) rows of the store."""
    return np.where(task.batches >= 0, task.rows[task.batches], -1)


def _padded(nested: Any) -> Any:
    """Nested lists of arrays as one int32 array, -1 where a list or an array is shorter than the longest."""
    if isinstance(nested, np.ndarray):
        return nested.astype(np.int32)
    parts = [_padded(part) for part in nested]
    shape = np.max([part.shape for part in parts], axis=0)
    whole = np.full((len(parts), *shape), -1, dtype=np.int32)
    for i, part in enumerate(parts):
        place: Any = (i, *(slice(0, size) for size in part.shape))
        whole[place] = part
    return whole
