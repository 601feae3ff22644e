"""Contracts of injections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.contracts.declarations import Declaration, declare, read_declaration

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


Included = Literal["each", "together", "by_client"]
"""Which examples of an injection one draw decides about: each alone, all together, or all of one owning client."""


@runtime_checkable
class Injection(Protocol):
    """Adds audit examples. `name` labels the kind in every output.

    It may declare what `InjectionDeclaration` lists. Before partitioning, `reserve_rows` rows are reserved for the
    examples, and `total_copies` (over all of them) for replacement rows. `num_rows` is the number of training rows of
    the data set.

    `plan` draws the rows of client k with `reserve.take_like(..., client=k)`. With a partition by owner these are its
    own rows. How many are needed is counted by a trial call of `plan`, in which `clients` hold all of their rows. The
    number of rows that are drawn for a client must therefore depend on `ClientData.num_rows`, not on the base rows.
    """

    role: ClassVar[Role]

    @property
    def name(self) -> str: ...

    def reserve_rows(self, num_clients: int, num_rows: int) -> int: ...

    def total_copies(self, num_clients: int, num_rows: int) -> int: ...

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan: ...


@runtime_checkable
class CanaryInjection(Injection, Protocol):
    """An injection whose generator can make fresh members of the same family: inputs, or those of a text in full."""

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32] | References: ...


@runtime_checkable
class ClassInjection(Injection, Protocol):
    """An injection whose reserved rows are all of one class; if `exclusive`, no client holds others of that class.

    Test and population keep the class. No client trains on rows that are kept from the clients and not injected.
    """

    exclusive: ClassVar[bool]

    @property
    def reserved_class(self) -> int: ...


@runtime_checkable
class AimedInjection(Injection, Protocol):
    """An injection whose examples are made against those of an earlier injection, which `aims_at` names.

    `plan_against` stands in for `plan`, and is given the plan of that injection as well. Its own plan has `aims_at`.
    """

    @property
    def aims_at(self) -> str | None: ...

    def plan_against(
        self,
        targets: InjectionPlan,
        clients: Sequence[ClientData],
        reserve: Reserve,
        space: Space,
        rng: np.random.Generator,
    ) -> InjectionPlan: ...


@runtime_checkable
class TriggeredInjection(Injection, Protocol):
    """An injection whose examples carry a trigger and have one label, its `target`.

    `with_trigger` puts the trigger on any inputs (n, *shape), and draws nothing.
    """

    @property
    def target(self) -> int: ...

    def with_trigger(self, inputs: NDArray[np.float32], space: Space) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class InjectionDeclaration(Declaration):
    """The declarations of an injection, with their defaults.

    Attributes:
        clients: Owning clients: `all`, a tuple of clients, `{share: x}` or `{count: n}` of them.
        start: First round in which its examples are trained on; None for the beginning.
        unmasked: Number of copies of each example that no coin masks.
        texts: Whether it can put its examples into texts.
        labelled_texts: Whether its examples may be texts with a class each.
        densities: Whether it has a meaning where data have no labels. One that does not say so is refused there.
        own_replacements: Whether its plans have `replacements`, rows of their own, so that no rows are reserved.
        takes_held: Whether its plans have `taken`, rows that clients hold. Nothing is reserved for it, and its `plan`
            is given the rows that clients still hold, with their columns.
        by_class: Whether it chooses rows by their class. `fedmem check` then counts the rows of each client by class.
        rows: Ids of the rows that it takes, where it names them; None where it does not.
        coins: Whether coins decide in which runs its examples are in. Without coins they are in in every run, and
            None stands for coins where a scenario has several runs.
        included: Whether random inclusion is drawn for `each` example, for all `together`, or for all examples of an
            owning client at once (`by_client`).
        reserved_class: Class that its rows are taken from, see `ClassInjection`.
        exclusive: Whether no client holds other rows of that class.
        foreign_rows: Whether it may take rows of other clients for a client that has too few, with a partition by
            owner. `fedmem check` counts these rows. Without this declaration, foreign rows are an error.
        uniform_secrets: Whether its examples and its references are drawn alike. Otherwise, as for secrets that people
            wrote, the rank of an example has no known distribution. Exposure then has no value without memorisation and
            no bound, and no p except that from random inclusion.
        aims_at: Name of the earlier injection against whose examples its own are made, see `AimedInjection`.
    """

    clients: object = declare("all", "all, a tuple of clients, {share: x} or {count: n}")
    start: int | None = declare(None, "a round, or None")
    unmasked: int = declare(0, "a whole number")
    texts: bool = declare(False, "true or false")
    labelled_texts: bool = declare(False, "true or false")
    densities: bool = declare(False, "true or false")
    own_replacements: bool = declare(False, "true or false")
    takes_held: bool = declare(False, "true or false")
    by_class: bool = declare(False, "true or false")
    rows: tuple[int, ...] | None = declare(None, "a tuple of ids, or None")
    coins: bool | None = declare(True, "true, false or None")
    included: Included = declare("each", "each, together or by_client")
    reserved_class: int | None = declare(None, "a class")
    exclusive: bool = declare(False, "true or false")
    foreign_rows: bool = declare(False, "true or false")
    uniform_secrets: bool = declare(True, "true or false")
    aims_at: str | None = declare(None, "the name of an injection, or None")


def has_coins(injection: object, runs: int) -> bool:
    """Whether coins decide in which of so many runs the examples of an injection are in.

    >>> from fedmem.injections.typical import Typical
    >>> has_coins(Typical(), 1)
    True
    """
    declared = injection_declaration(injection).coins
    return runs > 1 if declared is None else declared


def injection_declaration(injection: object) -> InjectionDeclaration:
    """The declarations of an injection.

    >>> from fedmem.injections.typical import Typical
    >>> injection_declaration(Typical(unmasked=1, copies=2)).unmasked
    1
    """
    return read_declaration(InjectionDeclaration, injection)
