"""Parts of every family that fail in a chosen method in a chosen way; otherwise they do what a shipped part does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.attack import GradientTarget, Reconstruction, Signals
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.client import ClientState, Outcome
from fedmem.contracts.data import ClientData, Dataset, Space
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.sampler import History
from fedmem.datasets.synthetic import Synthetic
from fedmem.defences.clip import Clip
from fedmem.estimators.memorisation import Memorisation
from fedmem.injections.random_pattern import RandomPattern
from fedmem.partitions.iid import IID
from fedmem.strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean

Change = Callable[[Any], Any]


class OwnError(BaseException):
    """An exception that no `except Exception` catches."""


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def throw(error: BaseException) -> Any:
    raise error


def leave() -> Any:
    sys.exit(0)


ACTS: dict[str, Callable[[], Any]] = {
    "raise": lambda: throw(ValueError("on purpose")),
    "key": lambda: throw(KeyError("on purpose")),
    "exit": leave,
    "stop": lambda: throw(StopIteration("on purpose")),
    "close": lambda: throw(GeneratorExit("on purpose")),
    "own": lambda: throw(OwnError("on purpose")),
    "long": lambda: throw(ValueError("\n".join(f"line {i} " + "x" * 500 for i in range(500)))),
    "memory": lambda: throw(MemoryError("on purpose")),
    "recurse": recurse,
    "hang": lambda: time.sleep(3600),
}
"""What a method may do instead of its work."""

CAUSES = {
    "raise": "ValueError: on purpose",
    "key": "KeyError: 'on purpose'",
    "exit": "SystemExit: 0",
    "stop": "StopIteration: on purpose",
    "close": "GeneratorExit: on purpose",
    "own": "OwnError: on purpose",
    "long": "ValueError: line 0 xxx",
    "memory": "MemoryError: on purpose",
    "recurse": "RecursionError: maximum recursion depth exceeded",
}
"""What a message says of it."""

Value = TypeVar("Value")


class Failing:
    """Fails in method `at` in the way `how`: one of `ACTS`, or a change of what is returned, by its name in `_ways`."""

    _ways: ClassVar[dict[str, Change]] = {}
    at: str
    how: str

    def _done(self, method: str, value: Value) -> Value:
        """The value, or at the method that is to fail what the way makes of it, which may be anything."""
        if method != self.at:
            return value
        if self.how in ACTS:
            return cast(Value, ACTS[self.how]())
        return cast(Value, None if self.how == "none" else self._ways[self.how](value))


def _at(array: NDArray[Any], place: Any, value: float) -> NDArray[Any]:
    changed = np.array(array)
    changed[place] = value
    return changed


def _train(data: Dataset, **changes: Any) -> Dataset:
    return replace(data, train=replace(data.train, **changes))


@dataclass(frozen=True, kw_only=True)
class BadDataset(Failing):
    at: str = "load"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "high": lambda data: _train(data, targets=_at(data.train.targets, 3, data.num_classes)),
        "low": lambda data: _train(data, targets=_at(data.train.targets, 3, -1)),
        "floats": lambda data: _train(data, targets=data.train.targets.astype(float)),
        "nan": lambda data: _train(data, inputs=_at(data.train.inputs, (5, 0), np.nan)),
        "double": lambda data: _train(data, inputs=data.train.inputs.astype(np.float64)),
        "empty": lambda data: replace(data, train=data.train.take(np.arange(0))),
        "narrow": lambda data: replace(data, test=replace(data.test, inputs=data.test.inputs[:, :-1])),
        "classes": lambda data: replace(data, num_classes=2.5),
        "owners": lambda data: replace(data, natural=np.zeros(3, dtype=np.int64)),
        "columns": lambda data: replace(data, columns={"age": np.zeros(3)}),
        "class names": lambda data: replace(data, class_names=("cat", "dog")),
        "same names": lambda data: replace(data, class_names=("cat",) * data.num_classes),
        "client names": lambda data: replace(data, natural=data.train.ids % 3, client_names=("Ada", "Ben")),
        "tuple": lambda data: (data.train, data.test),
    }

    def load(self, rng: np.random.Generator) -> Dataset:
        return self._done("load", Synthetic().load(rng))


@dataclass(frozen=True, kw_only=True)
class BadPartition(Failing):
    at: str = "assign"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "floats": lambda parts: [part.astype(float) for part in parts],
        "masks": lambda parts: [part > 3 for part in parts],
        "flat": lambda parts: 7,
    }

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        return self._done("assign", list(IID().assign(data, rows, num_clients, rng)))


@dataclass(frozen=True, kw_only=True)
class BadShift(Failing):
    at: str = "shift"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "shape": lambda inputs: inputs[:, :-1],
        "nan": lambda inputs: inputs * np.float32(np.nan),
        "range": lambda inputs: inputs + np.float32(5),
        "double": lambda inputs: inputs.astype(np.float64),
    }

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        return IID().assign(data, rows, num_clients, rng)

    def shift(self, client: int, num_clients: int, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._done("shift", inputs)


class Net(nn.Module):
    """A linear layer that fails at batches of so many rows; 0: at all."""

    def __init__(self, wide: int, classes: int, done: Change, rows: int) -> None:
        super().__init__()
        self.layer = nn.Linear(wide, classes)
        self.done, self.rows = done, rows

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(inputs.flatten(1))
        return self.done(outputs) if self.rows in (0, len(inputs)) else outputs


@dataclass(frozen=True, kw_only=True)
class BadModel(Failing):
    stackable: ClassVar[bool] = True

    at: str = "build"
    how: str = "raise"
    rows: int = 0

    _ways: ClassVar[dict[str, Change]] = {
        "bare": lambda net: nn.Flatten(),
        "nan": lambda net: (nn.init.constant_(net.layer.bias, float("nan")), net)[1],
        "wide": lambda outputs: torch.cat([outputs, outputs], dim=1),
        "flat": lambda outputs: outputs[0],
        "whole": lambda outputs: outputs.long(),
    }

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        wide = int(np.prod(input_shape))
        net = Net(wide, num_classes, lambda outputs: self._done("forward", outputs), self.rows)
        return self._done("build", net)


@dataclass(frozen=True, kw_only=True)
class BadInjection(Failing):
    role: ClassVar[Role] = "canary"

    at: str = "plan"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "owner": lambda plan: replace(plan, owner=_at(plan.owner, 0, 99)),
        "copies": lambda plan: replace(plan, copies=_at(plan.copies, 0, 0)),
        "nan": lambda plan: replace(
            plan, examples=replace(plan.examples, inputs=_at(plan.examples.inputs, (0, 0), np.nan))
        ),
        "label": lambda plan: replace(plan, examples=replace(plan.examples, targets=_at(plan.examples.targets, 0, 99))),
        "narrow": lambda plan: replace(plan, examples=replace(plan.examples, inputs=plan.examples.inputs[:, :-1])),
        "short": lambda plan: replace(plan, owner=plan.owner[:1]),
        "owners": lambda plan: replace(plan, owners=np.full(int(plan.copies.sum()), 44, dtype=np.int32)),
        "negative": lambda count: -count - 1,
        "fraction": lambda count: count + 0.5,
        "few": lambda rows: rows[:-1],
        "rows": lambda rows: rows[:, :-1],
    }

    @property
    def _inner(self) -> RandomPattern:
        return RandomPattern(per_client=1)

    @property
    def name(self) -> str:
        return "bad"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        return self._done("reserve_rows", self._inner.reserve_rows(num_clients, num_rows))

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        return self._done("total_copies", self._inner.total_copies(num_clients, num_rows))

    def plan(self, clients: Sequence[ClientData], spare: Any, space: Space, rng: np.random.Generator) -> InjectionPlan:
        return self._done("plan", self._inner.plan(clients, spare, space, rng))

    def references(self, count: int, space: Space, rng: np.random.Generator) -> Any:
        return self._done("references", self._inner.references(count, space, rng))


@dataclass(frozen=True, kw_only=True)
class BadSampler(Failing):
    at: str = "cohort"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "negative": lambda found: np.array([-1, 0, 1]),
        "twice": lambda found: np.array([0, 0, 1]),
        "mask": lambda found: np.array([True, False, True]),
        "outside": lambda found: np.array([0, 1, 3]),
        "floats": lambda found: np.array([0.0, 1.0]),
        "unsorted": lambda found: np.array([1, 0, 2]),
        "table": lambda found: np.array([[0, 1]]),
        "text": lambda found: "01",
        "ragged": lambda found: [[0], [1, 2]],
        "ones": lambda found: np.ones(3),
        "short": lambda found: found[:-1],
        "above": lambda found: np.full(3, 1.5),
        "nan": lambda found: np.full(3, np.nan),
        "zeros": lambda found: np.zeros(3),
    }

    def reachable_clients(self, round_number: int, history: History, rng: np.random.Generator) -> BoolArray:
        return self._done("reachable_clients", np.ones(history.num_clients, dtype=bool))

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        return self._done("cohort", np.arange(history.num_clients))

    def probabilities(self, round_number: int, history: History) -> FloatArray | None:
        return self._done("probabilities", np.ones(history.num_clients))


@dataclass(frozen=True, kw_only=True)
class BadInit(BadSampler):
    def __post_init__(self) -> None:
        ACTS[self.how]()


def _params(params: Params, change: Change) -> Params:
    name = next(iter(params))
    return {**params, name: change(params[name])}


def _sent(change: Change) -> Change:
    def changed(outcome: Outcome) -> Outcome:
        sent = _params(outcome.sent, change)
        return Outcome(sent=sent, kept=sent)

    return changed


@dataclass(frozen=True, kw_only=True)
class BadClient(Failing):
    batch_size: int = 8
    at: str = "step"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "flat": lambda batches: batches[0],
        "floats": lambda batches: batches.astype(float),
        "outside": lambda batches: _at(batches, (0, 0), 10**6),
        "below": lambda batches: _at(batches, (0, 0), -2),
        "text": lambda value: "text",
        "shape": _sent(lambda value: value[:1]),
        "rows": lambda state: {"params": _params(state["params"], lambda value: value[:1])},
        "whole": _sent(lambda value: value.long()),
        "double": _sent(lambda value: value.double()),
        "nan": _sent(lambda value: value * torch.nan),
        "fewer": lambda outcome: Outcome(sent={"layer.bias": outcome.sent["layer.bias"]}, kept=outcome.kept),
        "more": lambda outcome: Outcome(sent={**outcome.sent, "more": torch.zeros(1)}, kept=outcome.kept),
        "kept": lambda outcome: Outcome(sent=outcome.sent, kept=_params(outcome.sent, lambda value: value[:1])),
        "report": lambda outcome: replace(outcome, report={"own": torch.zeros(3)}),
        "remember": lambda outcome: replace(outcome, memory={"own": 3}),
    }

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=0.1, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._done("batches", self._inner.batches(num_examples, rng))

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return self._done("init", self._inner.init(before, {}, {}))

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        return self._done("step", self._inner.step(state, gradient))

    def final(self, state: ClientState, before: Params) -> Outcome:
        return self._done("final", self._inner.final(state, before))


@dataclass(frozen=True, kw_only=True)
class BadDefence(Failing):
    draws: ClassVar[str] = "none"

    at: str = "apply"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "shape": lambda update: _params(update, lambda value: value[:1].expand(2, *value.shape)),
        "double": lambda update: _params(update, lambda value: value.double()),
        "fewer": lambda update: {},
        "nan": lambda update: _params(update, lambda value: value * torch.nan),
    }

    def apply(self, update: Params, drawn: Params) -> Params:
        return self._done("apply", Clip(norm=1.0).apply(update, drawn))


def _first(change: Change) -> Change:
    """Of the models of the runs (R, ...) one parameter of the first is changed."""

    def changed(found: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        return _params(found[0], change), found[1]

    return changed


def _spoilt(value: torch.Tensor) -> torch.Tensor:
    after = value.clone()
    after[-1] = torch.nan
    return after


@dataclass(frozen=True, kw_only=True)
class BadStrategy(Failing):
    at: str = "rule"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "model": lambda found: found[0],
        "longer": _first(lambda value: torch.cat([value, value])),
        "shape": _first(lambda value: value[:, :1]),
        "scalar": _first(lambda value: value.sum(dim=tuple(range(1, value.ndim)))),
        "whole": _first(lambda value: value.long()),
        "nan": _first(_spoilt),
        "fewer": lambda found: ({}, found[1]),
        "array": _first(lambda value: value.numpy()),
        "number": lambda arrays: {"own": 3},
        "apart": lambda arrays: {"own": torch.zeros(17)},
        "text": lambda value: "text",
    }

    def make(self, cohort_size: int) -> Any:
        return self._done("make", RuleStrategy(self))

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return self._done("state", {})

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return self._done("payload", {})

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        return self._done("rule", (weighted_mean(rnd.sent, share(rnd.weights, rnd.present)), state))


class Swallowing(RuleStrategy):
    """A Flower strategy that goes on whatever happens in a round."""

    def start(self, grid: Any, initial_arrays: Any, num_rounds: int = 3, *others: Any, **named: Any) -> Any:
        from flwr.serverapp.strategy.result import Result

        with suppress(Exception):
            super().start(grid, initial_arrays, num_rounds, *others, **named)
        result = Result()
        result.arrays = initial_arrays
        return result


@dataclass(frozen=True, kw_only=True)
class SwallowingMaker(BadStrategy):
    def make(self, cohort_size: int) -> Any:
        return Swallowing(self)


def _later(found: list[Any]) -> Iterator[Any]:
    yield from found
    raise ValueError("on purpose")


@dataclass(frozen=True, kw_only=True)
class BadProbe(Failing):
    measures: ClassVar[tuple[Measure, ...]] = (Measure(name="own", title="own", means="One."),)

    every: int | None = None
    levels: tuple[Level, ...] = ("global",)
    at: str = "observe"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "later": _later,
        "text": lambda found: ["text"],
        "nobody": lambda found: [(None, Reading(metric="own", value=1.0))],
        "stranger": lambda found: [(replace(found[0][0], run=77), found[0][1])],
        "number": lambda found: [(found[0][0], 3.0)],
        "word": lambda found: [(found[0][0], Reading(metric="own", value="high"))],  # type: ignore[arg-type]  # on purpose
        "reading": lambda found: [Reading(metric="own", value=1.0)],
        "undeclared": lambda found: [(found[0][0], Reading(metric="other", value=1.0))],
    }

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        return self._done("observe", [(one, Reading(metric="own", value=1.0)) for one in transitions])

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        return self._done("summarise", [])


@dataclass(frozen=True, kw_only=True)
class SilentProbe(BadProbe):
    """A probe that reads nothing, and says so only when it is asked for a summary."""

    at: str = "summarise"

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        return []


@dataclass(frozen=True, kw_only=True)
class BadProperty(Failing):
    levels: tuple[Level, ...] = ("global",)
    at: str = "every"
    how: str = "raise"

    @property
    def every(self) -> int | None:
        return self._done("every", None)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        return []

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        return []


@dataclass(frozen=True, kw_only=True)
class BadEstimator(Failing):
    measures: ClassVar[tuple[Measure, ...]] = (
        *Memorisation.measures,
        Measure(name="own", title="own", means="One."),
    )

    at: str = "estimate"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "later": _later,
        "text": lambda found: ["text"],
        "short": lambda found: [
            replace(one, influence=replace(one.influence, cells=one.influence.cells[:-1])) for one in found
        ],
        "word": lambda found: [replace(one, value="high") for one in found],
        "single": lambda found: [replace(one, per_example=np.zeros(99)) for one in found],
        "undeclared": lambda found: [replace(one, metric="other") for one in found],
        "untested": lambda found: [(0, Reading(metric="other", value=1.0))],
        "run": lambda found: [(99, Reading(metric="own", value=1.0))],
        "reading": lambda found: [Reading(metric="own", value=1.0)],
    }

    def estimate(self, view: View) -> Sequence[Estimate]:
        return self._done("estimate", list(Memorisation().estimate(view)))

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        return self._done("tests", [])


@dataclass(frozen=True, kw_only=True)
class BadMembership(Failing):
    knows: ClassVar[str] = "margin"

    at: str = "scores"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "short": lambda scores: scores[:-1],
        "whole": lambda scores: np.nan_to_num(scores).astype(np.int64),
    }

    def scores(self, signals: Signals) -> FloatArray:
        return self._done("scores", LossThreshold().scores(signals))


@dataclass(frozen=True, kw_only=True)
class BadReconstruction(Failing):
    at: str = "reconstruct"
    how: str = "raise"

    _ways: ClassVar[dict[str, Change]] = {
        "fewer": lambda found: found[:-1],
        "arrays": lambda found: [one.inputs for one in found],
        "narrow": lambda found: [replace(one, inputs=one.inputs[..., :-1]) for one in found],
        "labels": lambda found: [replace(one, labels=one.labels[:0]) for one in found],
        "word": lambda found: [replace(one, distance="far") for one in found],
    }

    @property
    def knows(self) -> tuple[str, ...]:
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        found = [
            Reconstruction(
                inputs=np.zeros((1, *target.input_shape), dtype=np.float32),
                labels=np.zeros(1, dtype=np.int64),
                distance=1.0,
            )
            for target in targets
        ]
        return self._done("reconstruct", found)
