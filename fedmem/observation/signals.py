"""Reads the signals of a scenario at the models of a round, and what accumulates of them over rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import SignalEvidence, Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level
from fedmem.contracts.signal import (
    AccumulatingSignal,
    AnySignal,
    Network,
    SignalDeclaration,
    parts_of,
    quantities_of,
    signal_declaration,
)
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.validation_of_measures import signal_values_of
from fedmem.errors import ComponentError
from fedmem.guards.guarding import Guard
from fedmem.modalities.tables import Tables
from fedmem.observation.evidence import answers_of
from fedmem.seeding import stream
from fedmem.training.derivatives import ExampleGradients
from fedmem.training.executor import Executor

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

LOGITS = 1 << 25
"""Logits on audit examples that are held at the same time, about: 256 MB."""

_States = dict[tuple[int, Level, int], dict[str, NDArray[Any]]]
"""(run, level, client) -> what an accumulating signal keeps of this place."""


class SignalReader:
    """The signals of a scenario, with what they have accumulated so far in the runs of a shard."""

    def __init__(self, scenario: Scenario, federation: Federation, executor: Executor) -> None:
        self._scenario = scenario
        self._signals = scenario.signals
        self._rounds = scenario.rounds
        self._federation = federation
        self._executor = executor
        self._states: list[_States] = [{} for _ in self._signals]
        self._earlier_rounds = frozenset(
            number for signal in self._signals for number in signal_declaration(signal).earlier_rounds
        )
        self._earlier: dict[_PlaceInRound, Params] = {}

    @cached_property
    def _network(self) -> nn.Module:
        """The network in float64, on the CPU; made once."""
        return deepcopy(self._federation.model).to("cpu", torch.float64).eval()

    @cached_property
    def _gradients(self) -> ExampleGradients:
        """The gradients of single examples of the network; made once."""
        return ExampleGradients(self._network, self._federation.audit.examples.inputs)

    def is_due(self, first: Transition) -> bool:
        """Whether any signal is read on the audit examples at the round and level of this transition."""
        on_audit = (signal for signal in self._signals if signal_declaration(signal).set == "audit")
        return any(first.level in signal.levels and self._is_due(signal, first.round) for signal in on_audit)

    def read(
        self,
        transitions: Sequence[Transition],
        logits: Sequence[FloatArray] | None = None,
        others: Sequence[Transition] = (),
    ) -> list[SignalEvidence]:
        """The values of all signals that are due at these transitions, of one round and level, in order of names.

        `logits` are those of the models on the audit examples, group by group, where they are known already. `others`
        are the transitions of the other level of the round.
        """
        first = transitions[0]
        if first.round in self._earlier_rounds:
            self._earlier |= {_place_of(transition): transition.kept for transition in transitions}
        due = [
            (signal, states)
            for signal, states in zip(self._signals, self._states, strict=True)
            if first.level in signal.levels and self._is_due(signal, first.round)
        ]
        if not due:
            return []
        if (at_once := self._models_at_once()) < len(transitions):
            groups = [transitions[start : start + at_once] for start in range(0, len(transitions), at_once)]
            parts = [self.read(group, others=others) for group in groups]
            return [_join(blocks) for blocks in zip(*parts, strict=True)]
        contexts: dict[tuple[str, int], _SignalContext] = {}
        blocks = []
        for signal, states in due:
            declared = signal_declaration(signal)
            where = declared.set, declared.set_rows
            rows = rows_of_set(self._federation, self._scenario.seed, *where)
            if where not in contexts:
                contexts[where] = _SignalContext(
                    transitions,
                    self._scenario,
                    self._federation,
                    self._executor,
                    self._network,
                    lambda: self._gradients,
                    None if rows is None else examples_of_set(self._federation, declared.set).take(rows),
                )
                contexts[where].know_models(others, self._earlier)
                if rows is None and logits is not None:
                    contexts[where].know_logits(np.concatenate(logits))
            values = self._values(signal, states, contexts[where])
            blocks += [_block(transitions, name, values[name], declared.set, rows) for name in sorted(values)]
        return blocks

    def _models_at_once(self) -> int:
        """The number of models whose logits on all audit examples are held at the same time, at least one."""
        places = math.prod(self._federation.audit.examples.targets.shape)
        return max(1, LOGITS // max(1, places * self._federation.num_classes))

    def _is_due(self, signal: AnySignal, round_number: int) -> bool:
        return signal.every is None or round_number % signal.every == 0 or round_number == self._rounds

    def _values(self, signal: AnySignal, states: _States, context: _SignalContext) -> Mapping[str, FloatArray]:
        """The values of one signal, (T, n) under each of its names, and of each class where it has one for each."""
        first, count = context.transitions[0], len(context.transitions)
        parts = parts_of(signal, self._federation)
        shapes: dict[str, tuple[int, ...]] = {
            measure.name: (count, len(context.examples)) for measure in quantities_of(signal)
        }
        shapes |= {name: (count, len(context.examples), len(names)) for name, names in parts.items()}
        place: dict[str, Any] = {"round": first.round, "level": first.level}
        others = (("model", self._federation.model), ("signal", signal))
        if not isinstance(signal, AccumulatingSignal):
            with Guard("signal", signal, "values", others=others, **place) as guard:
                return _split_parts(signal_values_of(guard, signal.values(context), shapes), parts)
        with Guard("signal", signal, "update", others=others, **place) as guard:
            values = [_accumulate(signal, states, context, position) for position in range(count)]
            joined = {name: np.stack([part[name] for part in values]) for name in values[0]}
            return _split_parts(signal_values_of(guard, joined, shapes), parts)


def examples_of_set(federation: Federation, name: str) -> Examples:
    """The examples of a set that signals may be read on. Errors: `ComponentError` where there is no such set."""
    sets = {"audit": federation.audit.examples, "test": federation.test, "population": federation.population}
    if name not in sets:
        raise ComponentError("signals", f"a signal declares set = {name!r}; choose from: {', '.join(sets)}")
    return sets[name]


def count_examples(federation: Federation, declared: SignalDeclaration) -> int:
    """The number of examples that a signal is read on."""
    size = len(examples_of_set(federation, declared.set))
    return min(size, declared.set_rows) if declared.set != "audit" and declared.set_rows else size


def rows_of_set(federation: Federation, seed: int, name: str, count: int) -> IntArray | None:
    """(n,) the rows of a set that a signal is read on, ascending; None for the audit set, of which all are read.

    Of two counts, the larger has the rows of the smaller.
    """
    if name == "audit":
        return None
    size = len(examples_of_set(federation, name))
    order = stream(seed, f"signal rows of {name}").permutation(size)
    return np.sort(order[:count] if count else order)


def _split_parts(values: Mapping[str, FloatArray], parts: Mapping[str, Sequence[str]]) -> Mapping[str, FloatArray]:
    """The same, with one name for each part in the place of the names that have parts."""
    split = {name: array for name, array in values.items() if name not in parts}
    for name, names in parts.items():
        split |= {f"{name}.{part}": values[name][..., place] for place, part in enumerate(names)}
    return split


def _place_of(transition: Transition) -> _PlaceInRound:
    return transition.round, transition.level, transition.run, transition.client


def _accumulate(
    signal: AccumulatingSignal, states: _States, context: _SignalContext, position: int
) -> Mapping[str, FloatArray]:
    """The values that a place has accumulated, the model at this position included."""
    transition = context.transitions[position]
    place = transition.run, transition.level, transition.client
    state = states[place] if place in states else signal.start(context, position)
    states[place] = signal.update(state, context, position)
    return signal.values_of(states[place], context)


def _join(blocks: Sequence[SignalEvidence]) -> SignalEvidence:
    """The values of one quantity at all transitions, from those at groups of them."""
    run, client, values = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("run", "client", "values")
    )
    return replace(blocks[0], run=run, client=client, values=values)


def _block(
    transitions: Sequence[Transition], name: str, values: FloatArray, set_name: str, rows: IntArray | None
) -> SignalEvidence:
    """The values as they are stored; those on another set than the audit set as float32."""
    first = transitions[0]
    with np.errstate(over="ignore"):
        stored = values if rows is None else values.astype(np.float32)
    return SignalEvidence(
        round=first.round,
        level=first.level,
        name=name,
        run=np.array([transition.run for transition in transitions], dtype=np.int32),
        client=np.array([transition.client for transition in transitions], dtype=np.int32),
        values=stored,
        set=set_name,
        rows=rows,
    )


_PlaceInRound = tuple[int, Level, int, int]
"""Round, level, run and client of a model."""


class _SignalContext:
    """The services for signals: see `contracts.signal.SignalContext`."""

    def __init__(
        self,
        transitions: Sequence[Transition],
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        network: nn.Module,
        gradients: Callable[[], ExampleGradients],
        examples: Examples | None = None,
    ) -> None:
        self.transitions = transitions
        self.federation = federation
        self.examples: Examples = federation.audit.examples if examples is None else examples
        self._is_audit = examples is None
        self.seed = scenario.seed
        self.rounds = scenario.rounds
        self.network = network
        self.client: ClientAlgorithm = scenario.client
        self.weighting: str = strategy_declaration(scenario.strategy).weighting
        self._executor = executor
        self._gradients = gradients
        self._others: Sequence[Transition] = ()
        self._earlier: Mapping[_PlaceInRound, Params] = {}

    @property
    def column_widths(self) -> tuple[int, ...]:
        """The entries of each column of a table."""
        modality = self.federation.modality
        return modality.columns(self.examples.inputs.shape[1]) if isinstance(modality, Tables) else ()

    @cached_property
    def models(self) -> Sequence[Params]:
        """The models, as they were observed."""
        return [transition.kept for transition in self.transitions]

    @cached_property
    def sent_names(self) -> frozenset[str]:
        """The names of the parameters that clients send; running statistics are none."""
        federation = self.federation
        unsent = {*federation.personal_names(self.client), *federation.mode.statistics}
        return frozenset(federation.initial) - unsent

    def params(self, position: int) -> Params:
        """A model in float64, on the CPU."""
        return {name: value.detach().to("cpu", torch.float64) for name, value in self.models[position].items()}

    def function(self, position: int) -> Network:
        """The network with the parameters of a model."""
        return partial(_call, self.network, self.params(position))

    @cached_property
    def _logits(self) -> FloatArray:
        return self.logits_of(self.examples.inputs)

    def know_logits(self, logits: FloatArray) -> None:
        """Take the logits on the audit examples as known."""
        self.__dict__["_logits"] = logits

    def logits(self) -> FloatArray:
        """The logits on the audit examples, read-only."""
        self._logits.flags.writeable = False
        return self._logits

    def logits_of(self, inputs: NDArray[np.float32], models: Sequence[Params] | None = None) -> FloatArray:
        """The logits of these or of the observed models on any inputs."""
        models = self.models if models is None else models
        at_once = self._executor.models_at_once(len(inputs))
        parts = [
            self._executor.logits(models[start : start + at_once], inputs) for start in range(0, len(models), at_once)
        ]
        return np.concatenate(parts)

    def answers_of(self, models: Sequence[Params], examples: Examples) -> tuple[FloatArray, FloatArray]:
        """Margins and correctness of any models on any examples."""
        at_once = self._executor.models_at_once(len(examples))
        parts = [
            answers_of(models[start : start + at_once], examples.inputs, examples.targets, self._executor)
            for start in range(0, len(models), at_once)
        ]
        margin, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
        # a model that has diverged is right or wrong about nothing
        return margin, np.where(np.isnan(margin), np.nan, correct)

    def know_models(self, others: Sequence[Transition], earlier: Mapping[_PlaceInRound, Params]) -> None:
        """Take the transitions of the other level, and the models of earlier rounds, as known."""
        self._others, self._earlier = others, earlier

    def counterparts(self, position: int) -> Sequence[Transition]:
        """The transitions of the other level."""
        first = self.transitions[position]
        own = [other for other in self._others if other.run == first.run and other.level != first.level]
        same = [other for other in own if first.client >= 0 and other.client == first.client]
        return same or [other for other in own if first.client < 0 or other.client < 0]

    def earlier(self, position: int, round_number: int) -> Params | None:
        """The model of the same place after an earlier round."""
        first = self.transitions[position]
        if round_number >= first.round:
            return None
        place = (round_number, first.level, first.run, first.client)
        return self._earlier.get(place)

    @cached_property
    def _is_owner(self) -> BoolArray:
        clients = np.array([transition.client for transition in self.transitions])
        if not self._is_audit:
            is_global = self.transitions[0].level == "global"
            return np.full((len(clients), len(self.examples)), is_global)
        if self.transitions[0].level == "global":
            # an aggregate that is completed by the layers of one client is asked about that client's examples
            return np.asarray((clients < 0)[:, None] | self.federation.audit.holds(clients))
        return self.federation.audit.holds(clients)

    def is_owner(self) -> BoolArray:
        """Whose examples they are."""
        return self._is_owner

    @cached_property
    def _squares(self) -> Mapping[str, FloatArray]:
        return self._squares_at(self.models)

    def _squares_at(self, models: Sequence[Params]) -> Mapping[str, FloatArray]:
        return self._gradients().squares(models, self.examples.inputs, self.examples.targets)

    def squared_gradients(self, models: Sequence[Params] | None = None) -> Mapping[str, FloatArray]:
        """The squared norms of the gradients of single examples."""
        return self._squares if models is None else self._squares_at(models)

    def gradient_products(self, model: Params, first: Examples, second: Examples) -> FloatArray:
        """The inner products of the gradients of single examples."""
        return np.asarray(self._gradients().inner_products([model], first, second)[0])

    def stream(
        self, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        """A named stream that belongs to signals alone."""
        return stream(self.seed, f"signal {purpose}", run=run, round_number=round_number, client=client)


def _call(network: nn.Module, params: Params, inputs: Tensor) -> Tensor:
    outputs: Any = functional_call(network, params, (inputs,))
    return outputs  # type: ignore[no-any-return]
