"""What an injection must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import Injected, References, Role
from fedmem.contracts.data import ClientData, Space

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Spare


@runtime_checkable
class Injection(Protocol):
    """Adds audit examples. `name` labels the kind in every output.

    A class that can put its examples into texts says `texts: ClassVar[bool] = True`. One whose plans have `twins`,
    fill-ins of their own, says `own_fill_ins: ClassVar[bool] = True`, and no rows are reserved for these. Before
    partitioning, `spare_rows` is reserved for the examples and `total_copies` (over all of them) for fill-ins;
    `num_rows` is the number of training rows of the data set.
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
    """An injection that takes all its spare rows from one class; if `exclusive`, no client holds others of that class.

    Test and population keep the class. Rows that are kept from the clients and not injected are trained on by nobody.
    """

    exclusive: ClassVar[bool]

    @property
    def reserved_class(self) -> int: ...
