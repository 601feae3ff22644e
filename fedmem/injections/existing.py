"""Rows that clients really hold, included at random: an audit of your own rows, with nothing invented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.events import count as count_with_noun
from fedmem.contracts.injection import Included
from fedmem.errors import ComponentError
from fedmem.injections._placement import ClientChoice, Clients, choose_clients, count_owners, freeze_choice
from fedmem.wording import choices, client_with_name

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve

Value = bool | int | float | str
"""A value with which a cell of a column is compared."""

_DEFAULT = 4
_SELECTORS = ("rows", "where", "share", "per_client")
_SHOWN = 12
"""How many values of a column a message shows."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """Rows that the partition gave to clients. Each becomes an audit example of the client that holds it.

    Write one of `rows`, `where`, `share` and `per_client`, or `where` with `per_client`: that number of the matching
    rows of each client. A chosen row leaves the base rows of its client. In runs in which it is out, another row of the
    same client is its replacement row. These rows are set aside too, one for each chosen row. So a client trains on as
    many rows as it holds, minus its chosen ones, in every run. With n rows, at most (n - 1) // 2 can be chosen, and n -
    1 with `exclusion: remove`.

    Fields

    - `rows`: ids of rows of the data set: 0 is the first row of your file, without its header. For images, ids follow
      the sorted paths, and for texts the windows of all clients in order.
    - `where`: values by column, such as `{ward: [A, B], class: sick}`: rows that match all of them. Columns are those
      of the data set and its sensitive attributes, `class` (name or number) and `client` (name or number). A value in
      quotes is text: `"007"` is not 7. A number is sought as text first, then as a number.
    - `share`: the share of the rows of each client, drawn at random and rounded.
    - `per_client`: rows of each client, drawn at random; 4 where no other selector is given.
    - `clients`: the clients whose rows are chosen: `all`, a list of numbers or names, `{share: 0.3}` of
      them or `{count: 4}` of them.
    - `included`: whether random inclusion is drawn for `each` example, for all examples `together`, or for all examples
      of an owning client at once (`by_client`). Examples that are in or out together count as one draw.
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - inputs, targets and ids are those of the data set, and no row is added;
    - base rows, chosen rows and replacement rows of a client are together the rows of the partition;
    - partition, coins and draws of earlier injections stay as they are.

    Errors: `ComponentError` for two selectors, for a column or value that is not in the data, and for a row that no
    client holds. Also for more rows than can be chosen of a client.

    >>> Existing(rows=(3, 7)).total_copies(20, 900), Existing(per_client=2).total_copies(20, 900)
    (2, 40)
    """

    role: ClassVar[Role] = "typical"
    densities: ClassVar[bool] = True
    texts: ClassVar[bool] = True
    labelled_texts: ClassVar[bool] = True
    takes_held: ClassVar[bool] = True

    rows: tuple[Annotated[int, annotated_types.Ge(0)], ...] | None = None
    where: Mapping[str, Value | tuple[Value, ...]] | None = None
    share: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] | None = None
    per_client: Annotated[int, annotated_types.Ge(1)] | None = None
    clients: Clients = "all"
    included: Annotated[Included, "identity_neutral"] = "each"
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clients", freeze_choice(self.clients))
        given = [name for name in _SELECTORS if getattr(self, name) is not None]
        if len(given) > 1 and set(given) != {"where", "per_client"}:
            raise ComponentError(
                given[1],
                f"{given[0]} and {given[1]} both choose rows; "
                f"write one of {', '.join(_SELECTORS)}, or where with per_client",
            )
        if self.rows is not None:
            self._check_rows(self.rows)
        if self.where is not None:
            if not self.where:
                raise ComponentError("where", "an empty mapping says nothing; write a column and its value, or share")
            values = {name: _as_tuple(value) for name, value in self.where.items()}
            object.__setattr__(self, "where", ClientChoice(values))

    def _check_rows(self, rows: Sequence[int]) -> None:
        if not rows:
            raise ComponentError("rows", "an empty list chooses nothing; write ids of rows, such as [0, 17]")
        if len(set(rows)) < len(rows):
            twice = next(row for place, row in enumerate(rows) if row in rows[:place])
            raise ComponentError("rows", f"row {twice} is named twice; name each once")
        object.__setattr__(self, "rows", tuple(rows))

    @property
    def name(self) -> str:
        """The name in outputs: the label, or without one the kind."""
        return self.label or "existing"

    @property
    def by_class(self) -> bool:
        """Whether `where` names classes."""
        return self.where is not None and "class" in self.where

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Nothing is reserved: the rows are those of clients."""
        return 0

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """The number of chosen rows, or the most that there can be."""
        if self.rows is not None:
            return len(self.rows)
        chosen_by_value = self.share is not None or (self.where is not None and self.per_client is None)
        return num_rows if chosen_by_value else count_owners(self.clients, num_clients) * (self.per_client or _DEFAULT)

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The chosen rows, in order of client and of id."""
        owners = choose_clients(self.clients, clients, rng)
        places_by_owner = list(self._choose(owners, space, rng))
        self._require_few(owners, [len(places) for places in places_by_owner])
        examples = [data.examples.take(places) for data, places in zip(owners, places_by_owner, strict=True)]
        rows = Examples.concatenate(examples)
        return InjectionPlan(
            examples=rows,
            owner=np.repeat([data.client for data in owners], [len(part) for part in examples]).astype(np.int32),
            copies=np.ones(len(rows), dtype=np.int32),
            taken=rows.ids,
        )

    def _choose(self, owners: Sequence[ClientData], space: Space, rng: np.random.Generator) -> Iterator[IntArray]:
        """Client by client, the places of the chosen rows."""
        if self.rows is not None:
            yield from self._find_named(owners, self.rows)
        elif self.where is not None:
            matching = _find_matching(owners, self.where, space)
            yield from matching if self.per_client is None else _draw_each(list(matching), self.per_client, owners, rng)
        else:
            for data in owners:
                held = len(data.examples)
                count = self.per_client or _DEFAULT if self.share is None else int(self.share * held + 0.5)
                places = rng.permutation(held)[:count]
                # more than there are is reported with the number that is possible
                yield np.sort(places) if len(places) == count else np.arange(count)

    def _find_named(self, owners: Sequence[ClientData], rows: Sequence[int]) -> Iterator[IntArray]:
        found = [np.flatnonzero(np.isin(data.examples.ids, rows)) for data in owners]
        held = np.concatenate([data.examples.ids[places] for data, places in zip(owners, found, strict=True)])
        missing = np.setdiff1d(rows, held)
        if len(missing):
            raise ComponentError(
                "injections.rows",
                f"row {missing[0]} is held by none of the {len(owners)} clients of this injection; leave it out"
                + ("" if self.clients == "all" else ", or write `clients: all`"),
            )
        return iter(found)

    def _require_few(self, owners: Sequence[ClientData], counts: Sequence[int]) -> None:
        """Errors: `ComponentError` where so many rows of a client cannot be chosen, or nothing is chosen at all."""
        selector = next((name for name in _SELECTORS if getattr(self, name) is not None), "per_client")
        pairs = list(zip(owners, counts, strict=True))
        if not any(counts):
            raise ComponentError(
                f"injections.{selector}",
                f"no row of the {len(owners)} clients is chosen; raise it",
            )
        too_many = [(data, count) for data, count in pairs if count > data.max_taken]
        if too_many:
            data, count = too_many[0]
            grows = selector in ("where", "share") and self.per_client is None
            advice = "`per_client` chooses fewer of the matching rows" if grows else _elsewhere_text(data)
            others = f" (and {len(too_many) - 1} more clients hold too few)" if len(too_many) > 1 else ""
            raise ComponentError(
                f"injections.{selector}",
                f"{count} rows of {client_with_name(data.client, data.name)} are chosen, but of its "
                f"{len(data.examples)} rows at most {data.max_taken} can be{others}. A client keeps at least one row, "
                "and under `exclusion: replace` "
                "each chosen row needs another row of the client as its replacement row. Possible are "
                f"{sum(min(count, data.max_taken) for data, count in pairs)} of the {sum(counts)} rows; choose fewer, "
                f"choose among `clients`, or write `exclusion: remove`. {advice}",
            )


def _find_matching(owners: Sequence[ClientData], where: Mapping[str, Any], space: Space) -> Iterator[IntArray]:
    """Client by client, the places of the rows that have one of the values of each column."""
    matches = [np.ones(len(data.examples), dtype=bool) for data in owners]
    for name, values in where.items():
        cells = [_cells(name, data, space) for data in owners]
        if name == "class" and name not in owners[0].columns:
            values = tuple(_class_name(value, space.class_names) for value in values)
        equal = [_equal_cells(cells, value) for value in values]
        for value, parts in zip(values, equal, strict=True):
            if not any(part.any() for part in parts):
                shown = _values_text(cells)
                raise ComponentError(
                    f"injections.where.{name}",
                    f"no row of these clients has {value!r}; their values are {shown}",
                )
        for match, of_client in zip(matches, zip(*equal, strict=True), strict=True):
            match &= np.any(of_client, axis=0)
    if not any(match.any() for match in matches):
        raise ComponentError("injections.where", "no row of these clients has all of these values; ask for fewer")
    return iter([np.flatnonzero(match) for match in matches])


def _draw_each(
    matching: Sequence[IntArray], count: int, owners: Sequence[ClientData], rng: np.random.Generator
) -> Iterator[IntArray]:
    """Client by client, `count` of the matching places. Errors: `ComponentError` where a client has fewer."""
    few = [(data, len(places)) for data, places in zip(owners, matching, strict=True) if len(places) < count]
    if few:
        data, found = few[0]
        raise ComponentError(
            "injections.per_client",
            f"{count} matching rows of each client are wanted, but "
            f"{client_with_name(data.client, data.name)} holds {found}"
            + (f" (and {len(few) - 1} more clients hold too few)" if len(few) > 1 else "")
            + f"; lower per_client, or choose among `clients`. {_matching_elsewhere(data, owners, matching, count)}",
        )
    for places in matching:
        yield np.sort(rng.choice(places, size=count, replace=False))


def _matching_elsewhere(
    data: ClientData, owners: Sequence[ClientData], matching: Sequence[IntArray], count: int
) -> str:
    """Which clients hold enough matching rows; only owners have further rows that a lower population frees."""
    if data.elsewhere:
        return _elsewhere_text(data)
    enough = [owner.client for owner, places in zip(owners, matching, strict=True) if len(places) >= count]
    total = sum(map(len, matching))
    held = f"The clients hold {total} matching rows in all"
    if not enough:
        return f"{held}, and no client holds {count}; without per_client all of them are chosen"
    shown = ", ".join(map(str, enough[:_SHOWN])) + f" and {len(enough) - _SHOWN} more" * (len(enough) > _SHOWN)
    return f"{held}. Enough are held by {count_with_noun(len(enough), 'client')}: {shown}"


def _cells(name: str, data: ClientData, space: Space) -> NDArray[Any]:
    """The values of a column for the rows of a client; of classes and clients the names, where there are some."""
    if name in data.columns:
        return data.columns[name]
    if name == "class" and not space.modality.tokens:
        labels = data.examples.labels
        return np.array(space.class_names)[labels] if space.class_names else labels
    if name == "client":
        return np.full(len(data.examples), data.name or data.client, dtype=object)
    columns = [*data.columns, *(() if space.modality.tokens else ("class",)), "client"]
    raise ComponentError("injections.where", f"the data have no column {name!r}{choices(name, columns)}")


def _class_name(value: Value, names: Sequence[str]) -> Value:
    """The name of a class that is given by name or number; the number where classes have no names."""
    by_number = isinstance(value, int) and str(value) not in names and 0 <= value < len(names)
    return names[int(value)] if by_number else value


def _equal_cells(parts: Sequence[NDArray[Any]], value: Value) -> list[BoolArray]:
    """Part by part, which cells have a value: as text, and only where none has it so, as a number.

    >>> codes = [np.array(["007", "7"]), np.array(["07", "7.0"])]
    >>> [[part.tolist() for part in _equal_cells(codes, value)] for value in ("007", 7)]
    [[[True, False], [False, False]], [[False, True], [False, False]]]
    """
    if not isinstance(value, bool):
        same = [np.array([str(cell) == str(value) for cell in part.tolist()], dtype=bool) for part in parts]
        if any(part.dtype.kind not in "biuf" and found.any() for part, found in zip(parts, same, strict=True)):
            return same
    return [_equals(part, value) for part in parts]


def _equals(cells: NDArray[Any], value: Value) -> BoolArray:
    """Which cells have a value: a number equals numbers that are written as text, and true equals `true` and `yes`.

    Text equals text of the same letters, and cells that are numbers; a code such as 007 is none of these.

    >>> _equals(np.array(["3", "x"]), 3).tolist(), _equals(np.array([1.0, 2.0]), "2").tolist()
    ([True, False], [False, True])
    """
    if isinstance(value, bool) and cells.dtype.kind != "b":
        texts = ("true", "yes") if value else ("false", "no")
        return np.array([str(cell).lower() in texts for cell in cells.tolist()], dtype=bool)
    is_code = isinstance(value, str) and value[:1] == "0" and value[1:].isdecimal()
    number = None if is_code else _number(value)
    if cells.dtype.kind in "biuf":
        return np.asarray(cells == number if number is not None else np.zeros(len(cells), dtype=bool))
    if isinstance(value, str):
        return np.array([str(cell) == value for cell in cells.tolist()], dtype=bool)
    return np.array([_number(cell) == number for cell in cells.tolist()], dtype=bool)


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _as_tuple(value: Value | Iterable[Value]) -> tuple[Value, ...]:
    return (value,) if isinstance(value, (bool, int, float, str)) else tuple(value)


def _values_text(cells: Sequence[NDArray[Any]]) -> str:
    """The first values of a column, or its range."""
    values = sorted({cell for part in cells for cell in part.tolist()}, key=lambda cell: (str(type(cell)), cell))
    if len(values) > _SHOWN and all(isinstance(value, (int, float)) for value in values):
        return f"{values[0]} to {values[-1]}"
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more


def _elsewhere_text(data: ClientData) -> str:
    """Where further rows of a client are, and how it would hold more of them."""
    counts = ", ".join(f"{count} {reason}" for reason, count in data.elsewhere.items())
    known = f"Further training rows of its owner: {counts}; others may be test rows. " if counts else ""
    return f"{known}Lower `population`, or `test` of the data set, to leave clients more rows"
