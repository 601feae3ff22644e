"""Contracts of client algorithms, which act between receiving a model and sending one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.declarations import Declaration, declare, read_declaration
from fedmem.contracts.deduplication import Deduplication
from fedmem.contracts.selection import Selection

if TYPE_CHECKING:
    from torch import Tensor


ClientState = dict[str, Params]
"""The state of one client while it trains: `params`, and whatever else its algorithm needs, by name."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of a client algorithm: `sent` leaves the client, `kept` stays, `memory` waits for its next round."""

    sent: Params
    kept: Params
    memory: Params = field(default_factory=dict)
    report: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class ClientAlgorithm(Protocol):
    """Local work as pure functions of tensors, written for one client and run one by one or under `vmap`.

    `batches` plans the epochs: (steps, batch_size) positions into the client's rows, -1 is padding.
    `gradient(params)` is the gradient of the mean loss over the current batch. `payload` is the server payload
    of this client, and always has a scalar `round`; `memory` is what its last `final` left, empty at first.
    It may declare what `ClientDeclaration` lists.
    """

    @property
    def batch_size(self) -> int: ...

    def num_steps(self, num_examples: int) -> int: ...

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray: ...

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState: ...

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState: ...

    def final(self, state: ClientState, before: Params) -> Outcome: ...


@runtime_checkable
class PersonalClient(ClientAlgorithm, Protocol):
    """A client that keeps some layers to itself: `personal_parameters` names their parameters.

    They are unchanged in `sent` and complete in `kept`. At level global every owner reads the aggregate with its own
    layers in it.
    """

    def personal_parameters(self, params: Params) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How far the steps of a client go in one round.

    Attributes:
        learning_rates: (S,) one positive number for each local step, in order.
        weight_decay: pull towards zero that is added to each gradient, per unit of a parameter.
    """

    learning_rates: FloatArray
    weight_decay: float = 0.0

    @property
    def distance(self) -> float:
        """The sum of the learning rates: the update of a constant gradient, divided by minus this gradient.

        >>> Schedule(learning_rates=np.array([0.1, 0.3])).distance
        0.4
        """
        return math.fsum(self.learning_rates)


@runtime_checkable
class ScheduledClient(ClientAlgorithm, Protocol):
    """A client whose update an attack may read as a gradient, since it says how far its steps go.

    `schedule` is that of `num_steps` steps in the round `round_number` (1 is the first). Its learning rates depend on
    nothing else, such as earlier participation or the server payload. A client that does not have this method is
    refused by probes that read gradients.
    """

    def schedule(self, round_number: int, num_steps: int) -> Schedule: ...


@dataclass(frozen=True, kw_only=True)
class PerExample:
    """How the gradient of a step is made of those of its n examples, for privacy of each.

    `(sum_i g_i min(1, clip / |g_i|) + noise_multiplier clip z) / expected` with independent standard normal z; for an
    empty batch the noise alone.
    """

    clip: float
    noise_multiplier: float
    expected: float


@runtime_checkable
class PrivateAlgorithm(ClientAlgorithm, Protocol):
    """A client algorithm whose `gradient` is made as `per_example` says, at the parameters of its state alone.

    `rate` is the probability with which a record of that many is in a batch, each independently.
    """

    @property
    def per_example(self) -> PerExample: ...

    def rate(self, num_examples: int) -> float: ...


@dataclass(frozen=True, kw_only=True)
class ClientDeclaration(Declaration):
    """The declarations of a client algorithm, with their defaults.

    Attributes:
        follows: Instructions of Flower's strategies that it understands, each with its name in the server payload. An
            instruction that is not followed ends the run.
        steps_by_rows: Whether reported numbers of steps and learning rates depend only on the number of rows and the
            settings; otherwise no noise covers them. A subclass with methods of its own declares it again.
        central: Whether its work is defined for central training, where one client holds all rows.
        steps: Number of local steps in a round; None if it depends on the number of rows.
        momentum: Momentum of the local steps.
        noise_multiplier: Standard deviation of the noise divided by the clip; None if it is still to be found.
        deduplication: How it leaves duplicates among its own rows out of training; None where it trains on all.
        selection: How it leaves rows out of a participation by scores; None where it trains on all. Its `batches` then
            are positions among the rows that are kept, of which `Selection.kept` says how many there are.
        training_targets: `training_targets(rows)`, the targets that it trains on, of the shape of `rows.targets`. Each
            is the target of the row, or -1 where its token is left out of the loss. It depends on the row alone. None
            for the targets of the rows.
        text_fields: Its fields that are set and work on rows of tokens alone.
    """

    follows: Mapping[str, str] = declare({}, "a mapping of instructions to names in the server payload")
    steps_by_rows: bool = declare(False, "true or false", renewed=True)
    central: bool = declare(False, "true or false")
    steps: int | None = declare(None, "a whole number, or None")
    momentum: float = declare(0.0, "a number")
    noise_multiplier: float | None = declare(0.0, "a number, or None where it is to be found")
    deduplication: Deduplication | None = declare(None, "a fedmem.contracts.deduplication.Deduplication, or None")
    selection: Selection | None = declare(None, "a fedmem.contracts.selection.Selection, or None")
    training_targets: Callable[[Examples], IntArray] | None = declare(None, "a method training_targets(rows)")
    text_fields: tuple[str, ...] = declare((), "a tuple of names of fields")


def client_declaration(client: object) -> ClientDeclaration:
    """The declarations of a client algorithm.

    >>> from fedmem.clients.sgd import Sgd
    >>> client_declaration(Sgd(momentum=0.9)).momentum
    0.9
    """
    return read_declaration(ClientDeclaration, client)
