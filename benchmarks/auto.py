"""Proposes the table of `executor: auto`: `make auto-table`, or `python -m benchmarks.auto [--repetitions 3]`.

Every model is trained as one stack and one client after the other, at several sizes of the stack. The table that comes
of it is fixed in the code: a run never measures, so that the same scenario trains in the same way everywhere.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from benchmarks import machine, networks
from benchmarks.workloads import Blurred, Text
from fedmem.contracts.data import Dataset, Examples
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.modalities.tables import Tables
from fedmem.models.resnet8 import ResNet8
from fedmem.models.small_cnn import SmallCNN
from fedmem.scenario.scenario import Scenario

SIZES = (1, 4, 16, 64, 256)
"""Clients that are trained together."""

LONGEST = 3.0
"""Seconds of a round beyond which larger stacks are not tried."""

GAIN = 1.1
"""How much faster a stack has to be to be preferred; less is noise, and one by one is the reference."""


@dataclass(frozen=True, kw_only=True)
class Stackable:
    """A model that says it can be stacked, whatever it says by itself; that is what is tried here."""

    stackable: ClassVar[bool] = True

    inner: Any

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """The network of the model inside."""
        network: nn.Module = self.inner.build(input_shape, num_classes)
        return network


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """The network of W3."""

    stackable: ClassVar[bool] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """An embedding, an LSTM and a head."""
        return networks.build({"kind": "lm", "vocabulary": num_classes, "embedding": 64, "hidden": 128})


@dataclass(frozen=True, kw_only=True)
class Table:
    """Random rows of two numbers and two categories."""

    rows: int
    blocks: tuple[int, ...] = (1, 1, 8, 16)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the columns one after the other; the label follows from the first number."""
        columns = [
            rng.random((self.rows + 20, 1)) if size == 1 else np.eye(size)[rng.integers(size, size=self.rows + 20)]
            for size in self.blocks
        ]
        inputs = np.concatenate(columns, axis=1).astype(np.float32)
        targets = (inputs[:, 0] > 0.5).astype(np.int64)
        examples = Examples(inputs=inputs, targets=targets, ids=np.arange(len(inputs)))
        train, test = np.arange(self.rows), np.arange(self.rows, len(inputs))
        modality = Tables(blocks=self.blocks)
        return Dataset(train=examples.take(train), test=examples.take(test), num_classes=2, modality=modality)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model on data that suit it; `data` takes the number of rows, `rows` is how many a client has."""

    family: str
    model: Any
    data: Any
    rows: int = 50
    batch: int = 10

    def scenario(self, size: int, rounds: int, executor: str) -> Scenario:
        """One run in which `size` clients train at once."""
        fields: dict[str, Any] = {
            "name": "auto",
            "rounds": rounds,
            "clients": size,
            "dataset": self.data(self.rows * size),
            "model": self.model,
            "client": {"kind": "sgd", "lr": 0.01, "batch_size": self.batch},
            "population": 0,
            "exclusion": "remove",
            "speed": {"executor": executor, "server": "rule", "workers": 1},
        }
        return Scenario(**fields)


def _images(side: int) -> Any:
    return lambda rows: Blurred(rows=rows, shape=(1, side, side), classes=10, test=20)


CASES = (
    Case(family="logistic", model={"kind": "logistic"}, data=lambda rows: Blurred(rows=rows, shape=(64,), classes=10)),
    Case(family="mlp [64]", model={"kind": "mlp", "hidden": [64]}, data=_images(8)),
    Case(family="mlp [256, 256] on 28×28", model={"kind": "mlp", "hidden": [256, 256]}, data=_images(28)),
    Case(family="tabular_mlp", model={"kind": "tabular_mlp"}, data=lambda rows: Table(rows=rows)),
    Case(family="small_cnn on 8×8", model=Stackable(inner=SmallCNN()), data=_images(8)),
    Case(family="small_cnn on 28×28", model=Stackable(inner=SmallCNN()), data=_images(28), rows=20),
    Case(family="resnet8 on 8×8", model=Stackable(inner=ResNet8()), data=_images(8), rows=20),
    Case(
        family="LSTM of W3",
        model=Recurrent(),
        data=lambda rows: Text(rows=rows, length=16, vocabulary=90),
        rows=16,
        batch=8,
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case and print what the table should say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args(arguments)
    print(f"{machine.describe()}\n\nHow many times faster as a stack, by clients in the stack:\n")
    print(f"| model | {' | '.join(map(str, SIZES))} | proposed |\n|{'---|' * (len(SIZES) + 2)}")
    for case in CASES:
        gains = measure(case, SIZES, given.repetitions)
        cells = [f"{gains[size]:.2f}" if size in gains else "-" for size in SIZES]
        print(f"| {case.family} | {' | '.join(cells)} | {propose(gains)} |", flush=True)


def measure(case: Case, sizes: Sequence[int], repetitions: int) -> dict[int, float]:
    """Size of the stack -> median of one by one over stacked; no entry where it was too slow or cannot be stacked."""
    gains: dict[int, float] = {}
    for size in sizes:
        try:
            pairs = [
                (_round(case, size, "one_by_one"), _round(case, size, "stacked")) for _ in range(max(1, repetitions))
            ]
        except Exception as error:  # a network that torch cannot vectorise, or that a check refuses
            print(f"<!-- {case.family}: {type(error).__name__}: {str(error).splitlines()[0][:90]} -->")
            break
        gains[size] = statistics.median(one / stacked for one, stacked in pairs)
        if max(max(pair) for pair in pairs) > LONGEST:
            break
    return gains


def _round(case: Case, size: int, executor: str) -> float:
    """Seconds of a round: many rounds less one. Everything happens in one thread of this process, so that its own
    processor time is what it would take on a quiet machine.
    """
    rounds = max(4, 256 // size)
    seconds = []
    for count in (1, 1, 1 + rounds):
        scenario = case.scenario(size, count, executor)
        federation = build(scenario)
        started = time.process_time()
        simulate(scenario, federation, watch=False)
        seconds.append(time.process_time() - started)
    return (seconds[2] - seconds[1]) / rounds


def propose(gains: Mapping[int, float]) -> str:
    """From which size on a stack is faster, at that size and at all larger ones that were measured.

    >>> propose({1: 0.6, 4: 0.9, 16: 2.0, 64: 3.5})
    'stacked from 16 on'
    >>> propose({1: 1.4, 4: 0.9}), propose({})
    ('one_by_one', 'one_by_one')
    """
    best = None
    for size in sorted(gains, reverse=True):
        if gains[size] < GAIN:
            break
        best = size
    return "one_by_one" if best is None else f"stacked from {best} on"


if __name__ == "__main__":
    main()
