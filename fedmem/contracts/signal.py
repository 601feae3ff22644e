"""Contract of signals: cheap quantities of one model and one example that may stand for memorisation.

A signal is evidence like the loss. It is read while models are there, stored, and shown to estimators as
`View.signals`. It is no measure of memorisation, and no output calls it one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.data import Examples
from fedmem.contracts.declarations import class_value, declare, read_declaration
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure, as_proxy, gain_of
from fedmem.contracts.needs import YES_OR_NO, Needs, measures_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def signal_measures(measure: Measure) -> tuple[Measure, ...]:
    """The measures of one quantity of a signal: its mean over runs, and what training on the example adds to that.

    The first has rows for runs with the example and, with the label `statistic` = `out`, for runs without it. The
    second is their difference, which is 0 without memorisation. Both are in the table of proxies.

    >>> both = signal_measures(Measure(name="el2n", title="EL2N", means="Length of the error.", range=(0.0, 1.5)))
    >>> [one.name for one in both], both[1].range, both[1].null
    (['el2n', 'el2n_gain'], (-1.5, 1.5), 0.0)
    """
    plain = as_proxy(measure)
    return plain, gain_of(plain)


SignalLevel = Literal["local", "global"]
"""The levels at which signals are read: models of clients, and the aggregate."""

Network = Callable[["Tensor"], "Tensor"]
"""Inputs (n, ...) in float64 (tokens in int64) -> logits (n, C), of passages (n, L, C)."""


@runtime_checkable
class SignalContext(Protocol):
    """The T models that a signal is read at, the n examples that it is read on, and services.

    The models are what is `kept` after each of `transitions`, all of one round and level. `examples` are the audit
    examples, in their order, or rows of the set that the signal declares.
    """

    transitions: Sequence[Transition]
    examples: Examples
    federation: Federation
    seed: int
    rounds: int
    """The rounds of the scenario."""
    client: ClientAlgorithm
    """The client algorithm, which turns a received model into one that is sent."""
    weighting: str
    """How clients count in the aggregate: by `size` or `uniform`, as the strategy says."""

    @property
    def column_widths(self) -> tuple[int, ...]:
        """The entries of each column of a table: 1 for a number, k for a category; empty for other data."""
        ...

    @property
    def models(self) -> Sequence[Params]:
        """The T models."""
        ...

    @property
    def sent_names(self) -> frozenset[str]:
        """The names of the parameters that clients send: all but their personal layers."""
        ...

    @property
    def network(self) -> nn.Module:
        """The network in float64, for `torch.func.functional_call` with the parameters of `params`."""
        ...

    def params(self, position: int) -> Params:
        """The parameters of the model at a position 0 .. T − 1, in float64."""
        ...

    def function(self, position: int) -> Network:
        """The network with the parameters of the model at a position, in float64, in evaluation mode."""
        ...

    def logits(self) -> FloatArray:
        """(T, n, C) logits of the models on the examples; of passages (n, L, C). Formed once for all signals."""
        ...

    def logits_of(self, inputs: NDArray[np.float32], models: Sequence[Params] | None = None) -> FloatArray:
        """(T, n', C) logits of these models, or of the T observed ones, on any inputs."""
        ...

    def answers_of(self, models: Sequence[Params], examples: Examples) -> tuple[FloatArray, FloatArray]:
        """(M, n') each: margins and correctness of any models on any examples, as `Evidence` has them."""
        ...

    def counterparts(self, position: int) -> Sequence[Transition]:
        """The transitions of the other level in the run and round of a model; none at round 0, and at saved models.

        Of a client's model this is the aggregate, completed by the layers of that client where clients keep layers. Of
        an aggregate these are the models of all clients of the round, or of the client by whose layers it is completed.
        """
        ...

    def earlier(self, position: int, round_number: int) -> Params | None:
        """The model of the same place after one of the `earlier_rounds`; None where the place had none then."""
        ...

    def is_owner(self) -> BoolArray:
        """(T, n) whether the model is that of a client that holds the example; true everywhere at level `global`.

        No client holds rows of a set other than the audit set.
        """
        ...

    def squared_gradients(self, models: Sequence[Params] | None = None) -> Mapping[str, FloatArray]:
        """Parameter -> (T, n) squared norm of the part of each example's gradient that belongs to it.

        The gradient is that of the loss in nats, without weight decay, at these models or at the T observed ones. Their
        sum over all parameters is the squared norm of the gradient. Formed once for all signals.
        """
        ...

    def gradient_products(self, model: Params, first: Examples, second: Examples) -> FloatArray:
        """(n, q) inner products of the gradients of n examples with those of q others at one model, as above."""
        ...

    def stream(
        self, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        """A named stream that belongs to signals alone."""
        ...


@runtime_checkable
class Signal(Protocol):
    """Reads quantities of models and examples: name of a declared measure -> (T, n) float64, NaN where undefined.

    Quantities that it declares as `per_class` are (T, n, C), and those with `variants` (T, n, number of variants).

    The values of a model must not depend on the models beside it, since runs are trained in shards. It is read at the
    observed rounds, or every so many of them, at its levels. It may declare what `SignalDeclaration` lists.
    """

    @property
    def every(self) -> int | None: ...
    @property
    def levels(self) -> tuple[SignalLevel, ...]: ...

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]: ...


@runtime_checkable
class AccumulatingSignal(Protocol):
    """A signal whose values form over the rounds of a run at which it is read.

    For each run and place (the aggregate, or a client) there is one state. At each round at which it is read, the state
    becomes `update(state, context, position)`, with the model at that position, and `values_of(state)` are the values
    so far: (n,) float64 under each declared name. States live as long as the training of a shard.
    """

    @property
    def every(self) -> int | None: ...
    @property
    def levels(self) -> tuple[SignalLevel, ...]: ...

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The empty state of the place of the model at a position."""
        ...

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The state after one more model."""
        ...

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """The values so far."""
        ...


AnySignal = Signal | AccumulatingSignal


@dataclass(frozen=True, kw_only=True)
class SignalDeclaration(Needs):
    """The declarations of a signal, with their defaults.

    Attributes:
        passes: Forward passes of one example that reading one value costs, about; a backward pass counts as two. A
            property may compute it from fields. `fedmem check` prints the sum.
        texts: Whether it reads rows of tokens.
        texts_only: Whether it reads rows of tokens and nothing else.
        columns: Whether it reads the columns of a table, and thus only tables.
        owners_only: Whether local models are read on the examples of their own clients alone. A property may compute
            it.
        reads_update: Whether it reads the model before a round, the update or the report of a client. Saved models have
            none of them, so that such a signal cannot be read after training.
        held: Of an `AccumulatingSignal`, arrays of the shape of an input that each state holds for each example.
        model_rows: Rows of clients, or of the population, that it reads at each model besides examples, at most.
        min_blocks: Hidden blocks of `training.blocks.hidden_blocks` that a network must have.
        max_parameters: Trained parameters that a network may have at most; 0 for any number.
        for_large_networks: The field to write for a larger network, as the error says it: `write solver: cg`.
        reads_training: Whether it reads the objective of clients, the rates of their steps or their weights. The client
            must then be a `ScheduledClient`, and all clients must train one network without layers of their own.
        needs_mean: Whether it forms the aggregates of fewer clients, as the weighted mean of what they sent. A strategy
            whose rule is another is then refused.
        needs_every_round: Whether its values follow a run from round to round. Every round must then be observed.
        trains_last_layer: Whether it reads gradients of the layer that gives the logits, which then must not be frozen.
        per_class: Names of quantities with one value for each class, (T, n, C). They are stored for estimators and
            attacks, as `<name>.0` to `<name>.<C − 1>`, and have no rows in tables. See `per_class_of`.
        variants: Names of quantities with several values, (T, n, V). They are stored for estimators as
            `<name>.<variant>`, and have no rows in tables. See `variants_of`.
        variant_names: `variant_names(federation)`: for each of `variants`, what its V values are called. A variant may
            have points in its name.
        passes_in: `passes_in(federation)`, forward passes of one row, where they depend on the network or the data. The
            first number is for one value, the second for other rows at each model. It replaces `passes` and
            `model_rows`.
        targets: The number of examples on which it reads the influence of each audit example, as `<name>_on.audit.<i>`
            and `<name>_on.test.<i>` among its variants. Usually it is a field.
        earlier_rounds: Observed rounds whose models `SignalContext.earlier` gives in later rounds. They are kept in
            memory, one of each place.
        set: The examples that it is read on: `audit`, `test` or `population`. Values on other sets than `audit` are
            stored as float32, in `set_signals.parquet`. Estimators read them as `View.sets[set].signal`, and tables
            have no rows of them.
        set_rows: On another set than `audit`, how many of its rows are read at most; 0 means all. They are drawn from a
            named stream, are the same for all models, and of two numbers the larger has the rows of the smaller.
    """

    passes: float = declare(1.0, "a number of forward passes")
    texts: bool = declare(False, YES_OR_NO)
    texts_only: bool = declare(False, YES_OR_NO)
    columns: bool = declare(False, YES_OR_NO)
    owners_only: bool = declare(False, YES_OR_NO)
    reads_update: bool = declare(False, YES_OR_NO)
    held: int = declare(0, "a number of arrays")
    model_rows: int = declare(0, "a number of rows")
    min_blocks: int = declare(0, "a number of blocks")
    max_parameters: int = declare(0, "a number of parameters")
    for_large_networks: str = declare("", "text")
    reads_training: bool = declare(False, YES_OR_NO)
    needs_mean: bool = declare(False, YES_OR_NO)
    needs_every_round: bool = declare(False, YES_OR_NO)
    trains_last_layer: bool = declare(False, YES_OR_NO)
    per_class: tuple[str, ...] = declare((), "a tuple of names")
    variants: tuple[str, ...] = declare((), "a tuple of names")
    variant_names: Callable[[Federation], Mapping[str, Sequence[str]]] | None = declare(
        None, "a method variant_names(federation)"
    )
    passes_in: Callable[[Federation], tuple[float, float]] | None = declare(None, "a method passes_in(federation)")
    targets: int = declare(0, "a number of examples")
    earlier_rounds: tuple[int, ...] = declare((), "a tuple of rounds")
    set: str = declare("audit", "audit, test or population")
    set_rows: int = declare(0, "a number of rows")


def quantities_of(signal: object) -> tuple[Measure, ...]:
    """The measures of the quantities that a signal reads, without those of their differences.

    >>> from fedmem.signals.entropy import Entropy
    >>> [measure.name for measure in quantities_of(Entropy())]
    ['entropy', 'modified_entropy']
    """
    measures = measures_of(signal)
    gains = {measure.gain for measure in measures}
    return tuple(measure for measure in measures if measure.name not in gains)


def stored_names(signal: object, federation: Federation) -> tuple[str, ...]:
    """The names under which the values of a signal are stored, in this federation.

    >>> from types import SimpleNamespace
    >>> from fedmem.signals.probabilities import Probabilities
    >>> stored_names(Probabilities(), SimpleNamespace(num_classes=3))
    ('probability.0', 'probability.1', 'probability.2')
    """
    single = (measure.name for measure in quantities_of(signal))
    return *single, *(f"{name}.{part}" for name, parts in parts_of(signal, federation).items() for part in parts)


def parts_of(signal: object, federation: Federation) -> dict[str, tuple[str, ...]]:
    """The names of the values of each quantity that has several: classes by number, variants by their names.

    >>> from types import SimpleNamespace
    >>> from fedmem.signals.probabilities import Probabilities
    >>> parts_of(Probabilities(), SimpleNamespace(num_classes=2))
    {'probability': ('0', '1')}
    """
    declared = signal_declaration(signal)
    classes = tuple(map(str, range(federation.num_classes)))
    variants = declared.variant_names(federation) if declared.variant_names is not None else {}
    return {
        **dict.fromkeys(declared.per_class, classes),
        **{name: tuple(variants.get(name, ())) for name in declared.variants},
    }


def quantities_per_class(signal: object) -> tuple[str, ...]:
    """The names of the quantities of a signal or its class that have one value for each class of an example."""
    return _names_declared(signal, "per_class")


def quantities_in_parts(signal: object) -> tuple[str, ...]:
    """The names of the quantities of a signal or its class that are stored under several names each.

    >>> from fedmem.signals.probabilities import Probabilities
    >>> quantities_in_parts(Probabilities)
    ('probability',)
    """
    return (*quantities_per_class(signal), *_names_declared(signal, "variants"))


def _names_declared(signal: object, declaration: str) -> tuple[str, ...]:
    names: tuple[str, ...] = (
        class_value(signal, SignalDeclaration, declaration)
        if isinstance(signal, type)
        else getattr(signal_declaration(signal), declaration)
    )
    return names


def quantity_name(stored: str) -> str:
    """The name of a quantity from the name under which a value is stored.

    >>> quantity_name("probability.7"), quantity_name("el2n")
    ('probability', 'el2n')
    """
    return stored.partition(".")[0]


def variants_of(signals: Mapping[str, FloatArray], name: str) -> dict[str, FloatArray]:
    """The values of a quantity by variant, from signals by name such as `View.signals`; empty where it is not there.

    >>> list(variants_of({"swap_margin.received.1": np.zeros(2), "el2n": np.zeros(2)}, "swap_margin"))
    ['received.1']
    """
    start = f"{name}."
    return {stored.removeprefix(start): values for stored, values in signals.items() if stored.startswith(start)}


def class_name(name: str, label: int) -> str:
    """The name under which the value of one class is stored.

    >>> class_name("probability", 7)
    'probability.7'
    """
    return f"{name}.{label}"


def without_class(name: str) -> str:
    """The name of the value of one class up to the point before the class; another name as it is.

    >>> without_class("probability.7"), without_class("el2n")
    ('probability.', 'el2n')
    """
    quantity, point, label = name.rpartition(".")
    return quantity + point if quantity and label.isdigit() else name


def per_class_of(signals: Mapping[str, FloatArray], name: str) -> FloatArray | None:
    """The values of all classes, (..., C), from signals by name such as `View.signals`; None where they are not there.

    >>> half = np.full((2, 1, 3), 0.5)
    >>> per_class_of({"probability.0": half, "probability.1": half}, "probability").shape
    (2, 1, 3, 2)
    >>> per_class_of({"el2n": half}, "probability") is None
    True
    """
    parts: list[FloatArray] = []
    while class_name(name, len(parts)) in signals:
        parts.append(signals[class_name(name, len(parts))])
    return np.stack(parts, axis=-1) if parts else None


def signal_declaration(signal: object) -> SignalDeclaration:
    """The declarations of a signal.

    >>> from fedmem.signals.grad_norm import GradNorm
    >>> signal_declaration(GradNorm()).passes
    3.0
    """
    return read_declaration(SignalDeclaration, signal)
