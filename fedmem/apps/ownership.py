"""Identities in the frames of watchers: the client of each row, the clients that hold each example, and those seen."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.apps.assignment import Assignment
from fedmem.contracts.events import count
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT

if TYPE_CHECKING:
    import pandas as pd

Client = int | str
MemberOf = Client | None | Sequence[Client | None] | Assignment
"""The client that holds all examples of a set, the client of each (None: nobody), or an assignment."""

IDENTITY = ("client", "identity", "node")
HELD = ("owner", "included", "holds", "owner_seen")

_LARGEST_NUMBER = 2**31 - 1
"""Larger numbers of clients are ids of nodes."""


@dataclass(frozen=True)
class _Held:
    """The owner of each example of a set as text, empty for nobody, and whether it is included."""

    owner: tuple[str, ...]
    included: tuple[bool, ...]


class Ownership:
    """Which client holds which example, and the columns of a frame that say so.

    Args:
        sizes: the number of examples of each set.
        member_of: as in `Watch`; None where nothing is known.

    >>> ownership = Ownership({"mine": 2}, {"mine": [4, None]})
    >>> ownership.named_clients, ownership.columns
    (('4',), ('owner', 'included', 'holds', 'owner_seen'))
    """

    def __init__(self, sizes: Mapping[str, int], member_of: Mapping[str, MemberOf] | None) -> None:
        unknown = sorted(set(member_of or {}) - set(sizes))
        if unknown:
            raise ValueError(f"member_of names the set {unknown[0]!r}, but examples has only {sorted(sizes)}")
        self._is_stated = member_of is not None
        self._held = {name: _read_owners(name, (member_of or {}).get(name), size) for name, size in sizes.items()}
        self._seen: set[str] = set()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns about owners; none where nothing is known."""
        return HELD if self._is_stated else ()

    @property
    def named_clients(self) -> tuple[str, ...]:
        """All owners, as text."""
        owners = (owner for held in self._held.values() for owner in held.owner if owner)
        return tuple(dict.fromkeys(owners))

    def see(self, transitions: Sequence[Transition]) -> None:
        """Note who took part. Errors: `ValueError` where clients are named, but only the ids of nodes are known."""
        local = [transition for transition in transitions if transition.level == "local"]
        self._seen.update(str(client_of(transition)) for transition in local)
        nodes = [one.identity.node for one in local if one.identity is not None and one.identity.source == "node"]
        odd = [name for name in self.named_clients if not name.isdigit() or int(name) <= _LARGEST_NUMBER]
        if nodes and odd and min(nodes) > _LARGEST_NUMBER:
            is_name = not odd[0].isdigit()
            partition = (
                "'partition-id': context.node_config['partition-id'] to the metrics that the ClientApp returns from "
                "train"
            )
            record = f"a record that carries names to its reply, 'trace': ConfigRecord({{'client': {odd[0]!r}}})"
            seen = ", ".join(map(str, sorted(nodes)[:5]))
            raise ValueError(
                f"member_of names client {odd[0]!r}, but the clients of this app report no name. They are known by the "
                f"ids of their nodes alone, such as {seen}. Add {record if is_name else partition}, "
                f"or give Observed(..., clients={{node id: {odd[0]!r}}})"
                + (". A partition-id is a number, so it would be 0, 1, ..., and not this name" if is_name else "")
            )

    def labels(self, transition: Transition, name: str) -> list[dict[str, Any]]:
        """The columns about client and owner, for each example of a set."""
        identity, client = transition.identity, client_of(transition)
        base = {
            "client": client,
            "identity": "" if identity is None else identity.source,
            "node": "" if identity is None else str(identity.node),
        }
        held = self._held[name]
        if not self._is_stated:
            return [dict(base) for _ in held.owner]
        is_local = transition.level == "local"
        return [
            {
                **base,
                "owner": owner,
                "included": included,
                "holds": included and (not is_local or owner == str(client)),
                "owner_seen": owner in self._seen,
            }
            for owner, included in zip(held.owner, held.included, strict=True)
        ]

    def frame(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
        """A frame of such rows: `client` and `owner` are whole numbers, or text where any client is known by a text."""
        import pandas as pd

        frame = pd.DataFrame(rows, columns=list(columns))
        absent = [name for name in self.named_clients if name not in self._seen]
        if self._seen and absent:
            seen, hint = ", ".join(sorted(self._seen, key=_in_order)[:10]), _names_hint(absent, self._seen)
            warnings.warn(
                f"{count(len(absent), 'client')} of member_of never took part in an observed round "
                f"({', '.join(absent[:5])}); "
                f"those that did: {seen}. {hint}See column owner_seen",
                RuntimeWarning,
                stacklevel=3,
            )
        whole = all(not isinstance(row["client"], str) for row in rows)
        whole = whole and all(name.lstrip("-").isdigit() for name in self.named_clients)
        nobody: Any = NO_CLIENT if whole else ""
        convert: Any = int if whole else str
        for column in {"client", "owner"} & set(columns):
            values = [nobody if row[column] in (None, "") else convert(row[column]) for row in rows]
            frame[column] = pd.Series(values, index=frame.index, dtype=np.int64 if whole else object)
        return frame


def client_of(transition: Transition) -> Client | None:
    """The client of a transition, as frames have it: the id of a node is a text. None at other levels than local."""
    if transition.level != "local":
        return None
    identity = transition.identity
    if identity is None:
        return transition.client
    return str(identity.node) if identity.source == "node" else identity.value


def _names_hint(absent: Sequence[str], seen: Collection[str]) -> str:
    """How clients get names, where names are expected and numbers came."""
    if any(name.isdigit() for name in absent) or not all(name.isdigit() for name in seen):
        return ""
    return (
        "These are numbers, and member_of has names: use the numbers, or return names in a record, "
        "'trace': ConfigRecord({'client': name}), since metrics hold numbers alone. "
    )


def _in_order(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else -1, name)


def _read_owners(name: str, value: Any, size: int) -> _Held:
    """Errors: `ValueError` for a wrong length, or for what is no client."""
    place = f"member_of[{name!r}]"
    if isinstance(value, Assignment):
        owners: list[Any] = list(value.owner)
        included = value.included.tolist()
    else:
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        is_one = value is None or isinstance(value, int | str) or not isinstance(value, Sequence)
        owners = [value] * size if is_one else list(value)
        included = [owner is not None for owner in owners]
    if len(owners) != size:
        raise ValueError(
            f"{place}: {len(owners)} clients for {size} examples; give one client for the whole set, one for each "
            "example (None where nobody holds it), or assign_canaries(...)"
        )
    wrong = [one for one in owners if isinstance(one, bool) or not isinstance(one, int | str | np.integer | None)]
    if wrong:
        raise ValueError(
            f"{place}: {wrong[0]!r} is no client; give the number or the name of the client that holds the example, or "
            "None where nobody does"
        )
    return _Held(tuple("" if owner is None else str(owner) for owner in owners), tuple(map(bool, included)))
