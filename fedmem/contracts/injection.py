"""What an injection must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import Injected, References, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.contracts.declarations import Declaration, declared, read

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Spare


@runtime_checkable
class Injection(Protocol):
    """Adds audit examples. `name` labels the kind in every output.

    It may declare what `InjectionDeclaration` lists. Before partitioning, `spare_rows` is reserved for the examples and
    `total_copies` (over all of them) for replacement rows; `num_rows` is the number of training rows of the data set.
    """

    role: ClassVar[Role]

    @property
    def name(self) -> str: ...

    def spare_rows(self, num_clients: int, num_rows: int) -> int: ...

    def total_copies(self, num_clients: int, num_rows: int) -> int: ...

    def plan(self, clients: Sequence[ClientData], spare: Spare, space: Space, rng: np.random.Generator) -> Injected: ...


@runtime_checkable
class CanaryInjection(Injection, Protocol):
    """An injection whose generator can make fresh members of the same family: inputs, or those of a text in full."""

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32] | References: ...


@runtime_checkable
class ClassInjection(Injection, Protocol):
    """An injection whose reserved rows are all of one class; if `exclusive`, no client holds others of that class.

    Test and population keep the class. Rows that are kept from the clients and not injected are trained on by nobody.
    """

    exclusive: ClassVar[bool]

    @property
    def reserved_class(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class InjectionDeclaration(Declaration):
    """What an injection may declare, with the values that hold where it declares nothing.

    Attributes:
        clients: owning clients: `all`, a tuple of clients, `{share: x}` or `{count: n}` of them.
        start: first round in which its examples are trained on; None for the beginning.
        unmasked: number of copies of each example that no coin masks.
        texts: whether it can put its examples into texts.
        own_fill_ins: whether its plans have `twins`, replacement rows of their own, so that no rows are reserved.
        reserved_class: class that its rows are taken from, see `ClassInjection`.
        exclusive: whether no client holds other rows of that class.
    """

    clients: Any = declared("all", "all, a tuple of clients, {share: x} or {count: n}")
    start: int | None = declared(None, "a round, or None")
    unmasked: int = declared(0, "a whole number")
    texts: bool = declared(False, "true or false")
    own_fill_ins: bool = declared(False, "true or false")
    reserved_class: int | None = declared(None, "a class")
    exclusive: bool = declared(False, "true or false")


def injection_declaration(injection: object) -> InjectionDeclaration:
    """The declarations of an injection.

    >>> from fedmem.injections.typical import Typical
    >>> injection_declaration(Typical(unmasked=1, copies=2)).unmasked
    1
    """
    return read(InjectionDeclaration, injection)
