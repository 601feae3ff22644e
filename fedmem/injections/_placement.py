"""Where, how often and when the examples of an injection are trained on: what all kinds have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.injection import Included
from fedmem.errors import ComponentError
from fedmem.wording import choices

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve

Clients = (
    Literal["all"]
    | tuple[Annotated[int, annotated_types.Ge(0)] | Annotated[str, annotated_types.MinLen(1)], ...]
    | Mapping[Literal["share", "count"], int | float]
)
"""Who holds the examples of an injection; see `PlacedInjection`."""

_ALLOWED = "all, a list of clients by number or name such as [0, Lake View], {share: 0.3} or {count: 4}"


Key = TypeVar("Key")
Held = TypeVar("Held")


class ClientChoice(Mapping[Key, Held]):
    """An immutable mapping, such as `{share: x}`, so that components stay hashable.

    >>> dict(ClientChoice({"count": 4}))
    {'count': 4}
    """

    def __init__(self, values: Mapping[Key, Held]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: Key) -> Held:
        return self._values[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def freeze_choice(choice: Clients) -> Clients:
    """A choice of clients that can be hashed. Errors: `ComponentError` where it names none, or one twice."""
    if isinstance(choice, Mapping):
        _check_some(choice)
        return ClientChoice(choice)
    if choice == "all":
        return choice
    if not choice:
        raise ComponentError("clients", f"an empty list puts the examples nowhere; write {_ALLOWED}")
    if len(set(choice)) < len(choice):
        raise ComponentError("clients", f"{list(choice)} names a client twice; name each once")
    return tuple(choice)


def _check_some(some: Mapping[Literal["share", "count"], float]) -> None:
    """Exactly one of share in (0, 1] and count from 1."""
    if len(some) != 1:
        raise ComponentError("clients", f"{some} should have exactly one key; write {_ALLOWED}")
    ((key, value),) = some.items()
    if key == "share" and not 0 < value <= 1:
        raise ComponentError("clients", f"share {value} should lie above 0 and not above 1; write {_ALLOWED}")
    if key == "count" and (value < 1 or value != int(value)):
        raise ComponentError("clients", f"count {value} should be a whole number from 1 on; write {_ALLOWED}")


def count_owners(choice: Clients, num_clients: int) -> int:
    """The number of clients that hold examples, of `num_clients`."""
    if not isinstance(choice, Mapping):
        return num_clients if choice == "all" else len(choice)
    if "count" in choice:
        return int(choice["count"])
    # A share of .5 of 5 clients is 3: halves go up.
    return max(1, int(choice["share"] * num_clients + 0.5))


def choose_clients(choice: Clients, clients: Sequence[ClientData], rng: np.random.Generator) -> list[ClientData]:
    """The clients that hold the examples of an injection, in order; draws only where the choice is left to chance."""
    if choice == "all":
        return list(clients)
    if isinstance(choice, Mapping):
        positions = rng.choice(len(clients), size=count_owners(choice, len(clients)), replace=False).tolist()
    else:
        positions = _positions(choice, clients)
    return [clients[k] for k in sorted(positions)]


def _positions(choice: Sequence[int | str], clients: Sequence[ClientData]) -> list[int]:
    """The numbers of clients that are given by number or name. Errors: `ComponentError` for an unknown name, or two."""
    if not any(isinstance(client, str) for client in choice):
        return [int(client) for client in choice]
    names = [data.name for data in clients]
    positions = []
    for client in choice:
        if isinstance(client, str) and client not in names:
            known = [name for name in names if name]
            hint = choices(client, known) if known else "; clients have names with partition: {kind: natural} alone"
            raise ComponentError("injections.clients", f"no client is called {client!r}{hint}")
        positions.append(names.index(client) if isinstance(client, str) else int(client))
    if len(set(positions)) < len(positions):
        raise ComponentError("injections.clients", f"{list(choice)} names a client twice; name each once")
    return positions


@dataclass(frozen=True, kw_only=True)
class PlacedInjection(ABC):
    """An injection that puts equally many examples on each of some clients, in a window of rounds.

    Fields

    - `clients`: the clients that hold examples: `all`, a list of clients by number or name, `{share: 0.3}` of them or
      `{count: 4}` of them, drawn at random. A share is rounded to whole clients, at least one.
    - `per_client`: audit examples on each of these clients.
    - `copies`: how often an in example is trained on in each epoch, all copies together.
    - `unmasked`: so many of all copies of an example that are never out. They are trained on in every round of every
      run, as unknown duplicates would be. The comparison is then between all copies and these copies.
    - `start`: first round in which an in example is trained on; null: from the beginning.
    - `stop`: last round in which an in example is trained on; null: to the end.
    - `included`: whether random inclusion is drawn for `each` example, for all examples `together`, or for all examples
      of an owning client at once (`by_client`). Examples that are in or out together count as one draw.
    - `label`: name of this injection in every output; its kind if left out.
    """

    role: ClassVar[Role]

    clients: Clients = "all"
    per_client: Annotated[int, annotated_types.Ge(1)] = 4
    copies: Annotated[int, annotated_types.Ge(1)] = 1
    unmasked: Annotated[int, annotated_types.Ge(0)] = 0
    start: Annotated[int, annotated_types.Ge(1)] | None = None
    stop: Annotated[int, annotated_types.Ge(1)] | None = None
    included: Annotated[Included, "identity_neutral"] = "each"
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clients", freeze_choice(self.clients))
        if self.start is not None and self.stop is not None and self.stop < self.start:
            raise ComponentError(
                "stop",
                f"round {self.stop} comes before start, round {self.start}, so that nothing would ever be trained on; "
                f"write at least {self.start}, or leave it out",
            )

    @property
    def name(self) -> str:
        """The name in outputs: the label, or without one the kind."""
        return self.label or type(self).__module__.rpartition(".")[2]

    def _num_owners(self, num_clients: int) -> int:
        """The number of clients that hold examples, of `num_clients`."""
        return count_owners(self.clients, num_clients)

    def _choose_owners(self, clients: Sequence[ClientData], rng: np.random.Generator) -> list[ClientData]:
        return owning_clients(self, clients, rng)

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """One real row for each example, unless a kind says otherwise."""
        return self._num_owners(num_clients) * self.per_client

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Copies of all examples."""
        return self._num_owners(num_clients) * self.per_client * self.copies

    @abstractmethod
    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The audit examples of all owners, in order of client."""

    def _place(
        self,
        examples: Examples,
        owners: Sequence[ClientData],
        *,
        counts: IntArray | None = None,
        copies: int | None = None,
        extra: Examples | None = None,
        copy_index: IntArray | None = None,
    ) -> InjectionPlan:
        """Examples in order of client, with owner, copies and window; `counts` where clients hold unequal numbers."""
        repeats = self.per_client if counts is None else counts
        return InjectionPlan(
            examples=examples,
            owner=np.repeat(np.array([data.client for data in owners], dtype=np.int32), repeats),
            copies=np.full(len(examples), copies or self.copies, dtype=np.int32),
            start=self.start,
            stop=self.stop,
            unmasked=self.unmasked,
            extra=extra,
            copy_index=copy_index,
        )

    def _rows(self, owners: Sequence[ClientData], reserve: Reserve, rng: np.random.Generator) -> Examples:
        """`per_client` reserve rows for each client, with labels drawn like those of its own rows."""
        return Examples.concatenate(
            [reserve.take_like(data.examples.labels, self.per_client, rng, data.client) for data in owners]
        )

    def _rows_of(
        self, field: str, label: int, owners: Sequence[ClientData], reserve: Reserve, rng: np.random.Generator
    ) -> Examples:
        """`per_client` reserve rows for each client, of one class, which `field` names."""
        count = len(owners) * self.per_client
        available = int(np.count_nonzero(reserve.remaining().targets == label))
        if available < count:
            raise ComponentError(
                f"injections.{field}",
                f"{count} rows of class {label} are wanted but {available} are left; lower per_client or clients",
            )
        return reserve.take_for(np.array([label]), self.per_client, rng, [data.client for data in owners])

    def _plan_canaries(
        self,
        family: Callable[[int, Space, np.random.Generator], NDArray[np.float32]],
        clients: Sequence[ClientData],
        space: Space,
        rng: np.random.Generator,
    ) -> InjectionPlan:
        """`per_client` members for each owner, drawn by the generator that also makes the references of the family."""
        owners = self._choose_owners(clients, rng)
        return self._plan_inputs(family(len(owners) * self.per_client, space, rng), owners, space, rng)

    def _plan_inputs(
        self, inputs: NDArray[np.float32], owners: Sequence[ClientData], space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """Inputs that were made, with uniformly random labels and negative ids."""
        targets = rng.integers(space.num_classes, size=len(inputs))
        return self._place(Examples(inputs=inputs, targets=targets, ids=-1 - np.arange(len(inputs))), owners)


def owning_clients(
    placed: PlacedInjection, clients: Sequence[ClientData], rng: np.random.Generator
) -> list[ClientData]:
    """The clients that hold the examples of an injection, in order."""
    return choose_clients(placed.clients, clients, rng)
