"""Contracts of strategies: their methods and their declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from fedmem.contracts.client_values import SOME_READS, Value
from fedmem.contracts.declarations import Declaration, class_value, declare, read_declaration

if TYPE_CHECKING:
    from flwr.app import ArrayRecord
    from flwr.serverapp.strategy import Strategy
    from torch import Tensor

    from fedmem.contracts.arrays import Params


@runtime_checkable
class StrategyMaker(Protocol):
    """Makes a Flower `Strategy` for a cohort of this size (0: it varies); may declare what `StrategyDeclaration` lists.

    A strategy declares with class attributes, properties, fields and methods of these names. Any other public name is
    refused, so that a misspelt declaration is an error; helpers begin with an underscore.
    """

    def make(self, cohort_size: int) -> Strategy: ...


class Services(Protocol):
    """The services of a bank of runs to the Flower strategy of one run; see `fedmem.strategies._rule.Services`."""

    nodes: Sequence[int]
    reports: Mapping[int, Mapping[str, float]]
    generators: Callable[[], tuple[np.random.Generator, ...]] | None
    canary_updates: Callable[[Params], Iterable[tuple[Params, Tensor]]] | None


@runtime_checkable
class ServedStrategy(Protocol):
    """A made Flower strategy that uses the services of a bank, which the engine writes before each round.

    `step_without_clients` gives the model after a round in which no client takes part; None if it stays as it is.
    """

    rule: object
    services: Services

    def step_without_clients(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord | None: ...


@dataclass(frozen=True, kw_only=True)
class StrategyDeclaration(Declaration):
    """The declarations of a strategy, with their defaults.

    Attributes:
        client: Kind of the client algorithm that applies the strategy's server payload; None if any does.
        client_fields: Values that the strategy assumes for fields of that client.
        min_cohort: Number of clients without which the strategy's robustness guarantee does not hold.
        weighting: Weights of clients in sums and in the aggregate.
        reads: Values of clients that it reads besides their updates; None if it does not declare them, so that there
            is no privacy guarantee. A subclass with methods of its own declares it again.
        noise_covers: Those of `reads` that its own noise covers. A subclass with methods declares it again.
        central: Whether it is defined for central training, where there is nothing to aggregate.
        noisy: Whether it adds noise for the privacy of clients; it is then applied in rounds without clients, too.
        noise_multiplier: Standard deviation of the noise divided by the sensitivity; None if it is still to be found.
        expected_cohort_size: Number that a noisy sum is divided by.
        clip: Fixed clipping norm of an update; None if there is none.
        cap: Number of rows from which a client has the full weight in a noisy sum.
        canary_clients: Number of canary clients; None if it cannot have any.
        unit: What neighbouring data sets differ in.
        squared_sensitivity: `squared_sensitivity(rounds, min_separation, participations=None)`, the squared sensitivity
            of all that is released to one client, in squared clips. The client has `participations` participations
            (None: as many as fit) at least `min_separation` rounds apart. Only for noise that is not new in every
            round.
        release_statement: `release_statement(round_number)`, what a round releases, for tests of the mechanism; see
            `strategies/_private.py`.
        rule: The server step on stacked arrays; see `strategies/_rule.py`. None if there are only messages.
        state: The first state of the rule.
        payload: The server payload of the rule for each client.
    """

    client: str | None = declare(None, "a kind of client, such as sgd")
    client_fields: Mapping[str, float] = declare({}, "a mapping of fields of the client to numbers")
    min_cohort: int = declare(1, "a whole number")
    weighting: Literal["size", "uniform"] = declare("size", "size or uniform")
    reads: tuple[Value, ...] | None = declare(None, SOME_READS, renewed=True)
    noise_covers: tuple[Value, ...] = declare((), SOME_READS.replace("reads:", "noise_covers:"), renewed=True)
    central: bool = declare(False, "true or false")
    noisy: bool = declare(False, "true or false")
    noise_multiplier: float | None = declare(None, "a number, or None where it is to be found")
    expected_cohort_size: float | None = declare(None, "a number of clients")
    clip: float | None = declare(None, "a norm, or None")
    cap: int | None = declare(None, "a number of rows, or None")
    canary_clients: int | None = declare(None, "a whole number")
    unit: Literal["client"] = declare("client", "client")
    squared_sensitivity: Callable[..., int] | None = declare(
        None, "a method squared_sensitivity(rounds, min_separation, participations=None)"
    )
    release_statement: Callable[[int], Mapping[str, float] | None] | None = declare(
        None, "a method release_statement(round_number)"
    )
    rule: Callable[..., object] | None = declare(None, "a method rule(state, rnd)")
    state: Callable[..., object] | None = declare(None, "a method state(before, num_clients)")
    payload: Callable[..., object] | None = declare(None, "a method payload(state, clients)")

    @property
    def counts_participations(self) -> bool:
        """Whether the noise is that of whole prefixes, so that the number of participations of a client matters."""
        return self.squared_sensitivity is not None


def strategy_declaration(strategy: StrategyMaker) -> StrategyDeclaration:
    """The declarations of a strategy.

    >>> from fedmem.strategies.fedprox import FedProx
    >>> one = strategy_declaration(FedProx())
    >>> one.client, one.reads, one.noisy
    ('sgd', ('rows',), False)
    """
    return read_declaration(StrategyDeclaration, strategy)


def why_not_recomputed(strategy: StrategyMaker) -> str | None:
    """Why the aggregate of a round does not follow from what its clients sent, to follow a name; None where it does.

    It does for a rule that starts without a state, since a rule returns its state with the same names.

    >>> from fedmem.strategies.fedavg import FedAvg
    >>> from fedmem.strategies.fedavgm import FedAvgM
    >>> why_not_recomputed(FedAvg()) is None
    True
    >>> why_not_recomputed(FedAvgM())
    'carries a state of the server from round to round'
    """
    import torch

    declared = strategy_declaration(strategy)
    if declared.rule is None or declared.state is None:
        return "declares no rule, so that its aggregate is made by messages alone"
    try:
        state = declared.state({"weight": torch.zeros(1, 2, 2), "bias": torch.zeros(1, 2)}, 1)
    except Exception as error:  # somebody else's code, which may know its own model alone
        return f"cannot say whether it carries a state, since its state(...) fails: {type(error).__name__}: {error}"
    return "carries a state of the server from round to round" if state else None


def why_no_mean(strategy: StrategyMaker) -> str | None:
    """Why the aggregate of a round is not the weighted mean of what clients sent, to follow a name; None where it is.

    The rule is tried on five small models, one of which is far from the others.

    >>> from fedmem.strategies.fedavg import FedAvg
    >>> from fedmem.strategies.fedmedian import FedMedian
    >>> why_no_mean(FedAvg()) is None
    True
    >>> why_no_mean(FedMedian())
    'does not take the weighted mean of what clients sent'
    """
    import torch

    from fedmem.strategies._rule import Round, share, weighted_mean

    declared = strategy_declaration(strategy)
    reason = why_not_recomputed(strategy)
    if reason is not None or declared.rule is None:
        return reason
    sent = {"weight": torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.5, 0.0], [-2.0, 4.0], [4e3, -3e3]]])}
    sizes, present = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]).double(), torch.ones((1, 5), dtype=torch.bool)
    weights = sizes if declared.weighting == "size" else torch.ones_like(sizes)
    server_round = Round(
        number=1,
        before={"weight": torch.tensor([[0.25, -0.5]])},
        sent=sent,
        weights=sizes,
        present=present,
        clients=torch.arange(5)[None],
    )
    try:
        after: Any = declared.rule({}, server_round)
        is_mean = torch.allclose(after[0]["weight"], weighted_mean(sent, share(weights, present))["weight"])
    except Exception as error:  # somebody else's code, which may know its own model alone
        return f"cannot say whether it takes a mean, since its rule(...) fails: {type(error).__name__}: {error}"
    return None if is_mean else "does not take the weighted mean of what clients sent"


def why_more_is_sent(strategy: StrategyMaker) -> str | None:
    """The end of a message: what the server sends, or may send, beside the model. None where it sends the model alone.

    >>> from fedmem.strategies.fedavgm import FedAvgM
    >>> from fedmem.strategies.fedprox import FedProx
    >>> why_more_is_sent(FedAvgM()) is None
    True
    >>> why_more_is_sent(FedProx())
    'sends mu beside the model'
    """
    import torch

    declared = strategy_declaration(strategy)
    if declared.rule is None:
        return "declares no rule, so that nothing says what its server sends"
    if declared.payload is None:
        return None
    try:
        state = {} if declared.state is None else declared.state({"w": torch.zeros(1, 2, 2)}, 1)
        payload = declared.payload(state, torch.zeros((1, 1), dtype=torch.int64))
    except Exception as error:  # somebody else's code, which may know its own model alone
        return f"cannot say what its server sends, since its payload(...) fails: {type(error).__name__}: {error}"
    names = sorted(payload) if isinstance(payload, Mapping) else []
    return f"sends {' and '.join(names)} beside the model" if names else None


def client_of(strategy: type) -> str | None:
    """The kind of client that a class of strategies declares."""
    kind: str | None = class_value(strategy, StrategyDeclaration, "client")
    return kind
