"""Readings, measurements and transitions, and the places they belong to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["local", "sum", "global"]
"""Where a model was read: at one client, summed over some, or after aggregation."""


NO_CLIENT = -1
"""The number in columns and arrays of clients that stands for no single client: an aggregate, or several clients."""


LabelValue = str | int | float | bool


@dataclass(frozen=True)
class Label:
    """A label that a component gives its readings: a column of `measurements.parquet`.

    Attributes:
        name: The column, a name in lower case.
        kind: `text`, `whole` for whole numbers, `number`, or `yes` for what is either there or not.
        means: What it says, in one line.
        titles: Values of it that tables call by another name.
        is_class: Whether its whole numbers are classes, which are shown by the names that the data give them.

    Examples:
        >>> Label("layer", "text", "the layer of the network").fits("fc1")
        True
    """

    name: str
    kind: Literal["text", "whole", "number", "yes"]
    means: str
    titles: tuple[tuple[str, str], ...] = ()
    is_class: bool = False

    def fits(self, value: object) -> bool:
        """Whether a value is of the kind of this label."""
        return type(value) in _PYTHON[self.kind]


_PYTHON: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "whole": (int,),
    "number": (float, int),
    "yes": (bool,),
}


LABELS: Mapping[str, Label] = {
    one.name: one
    for one in (
        Label("place", "text", "whose model is read at a client: that of the owner, or the others"),
        Label("statistic", "text", "what is read, where a measure has several variants"),
        Label("attack", "text", "the kind of the membership attack"),
        Label("options", "text", "the fields of the attack that are not at their default"),
        Label("fpr", "number", "the false positive rate at which a true positive rate was taken"),
        Label("contrast", "text", "what a difference compares: levels, kinds, or in and out"),
        Label("minus", "text", "what a difference subtracts: the aggregate, a kind of example, or held-out examples"),
        Label("of", "text", "the measure that a retention is of"),
        Label("over", "text", "what a retention pools: all rounds"),
        Label("resolved", "text", "no: the local effect is not significant, so that there is no retention"),
        Label("clients", "whole", "the number of clients in a sum"),
        Label("coin", "text", "out: the run did not train on the example"),
        Label("owner", "whole", "the client that owns the example"),
        Label("kind", "text", "the kind of audit example"),
        Label("claim", "text", "what a value is: a bound, an estimate, a proxy, or dependent on the data"),
        Label("method", "text", "how an audit counts"),
        Label("unit", "text", "what neighbouring data sets differ in: a record or a client"),
        Label("adjacency", "text", "how neighbouring data sets differ"),
        Label("delta", "number", "the delta of an epsilon"),
        Label("part", "text", "the part of the scenario that gives a guarantee"),
    )
}
"""The labels that every component may use. A component declares further ones as
`row_labels: ClassVar[tuple[Label, ...]]`."""


@dataclass(frozen=True)
class Labels:
    """Labels that distinguish readings of one measure, by name. Equal labels are equal and hash alike, in any order.

    This module alone writes and reads labels. No text is split into words.

    Examples:
        >>> labels = Labels.of(place="owner", attack="lira", fpr=None)
        >>> labels.get("attack"), labels.get("fpr"), str(labels)
        ('lira', None, 'attack=lira, place=owner')
        >>> labels.without("place") == Labels.of(attack="lira")
        True
    """

    items: tuple[tuple[str, LabelValue], ...] = ()

    @staticmethod
    def of(values: Mapping[str, LabelValue | None] | None = None, **more: LabelValue | None) -> Labels:
        """Labels from names and values; None and empty texts are no labels."""
        labels = {**(values or {}), **more}
        return Labels(
            tuple(sorted((name, value) for name, value in labels.items() if value is not None and value != ""))
        )

    def get(self, name: str) -> LabelValue | None:
        """The value of a label; None where there is no such label."""
        return next((value for label, value in self.items if label == name), None)

    def text(self, name: str, default: str = "") -> str:
        """The value of a label that is a text, or the default.

        >>> Labels.of(attack="lira").text("attack")
        'lira'
        """
        value = self.get(name)
        assert value is None or isinstance(value, str), f"label {name} is {value!r}, no text"
        return default if value is None else value

    def number(self, name: str, default: float | None = None) -> float:
        """The value of a label that is a number, or the default; without a default, the label is there.

        >>> Labels.of(fpr=0.01).number("fpr")
        0.01
        """
        value = self.get(name)
        value = default if value is None else value
        assert isinstance(value, int | float), f"label {name} is {value!r}, no number"
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """The value of a label that is a whole number, or the default; without a default, the label is there.

        >>> Labels.of(owner=3).integer("owner")
        3
        """
        value = self.get(name)
        value = default if value is None else value
        assert isinstance(value, int), f"label {name} is {value!r}, no whole number"
        return value

    def plus(self, **more: LabelValue | None) -> Labels:
        """These labels and others, which replace those of the same name; None takes a label away."""
        return Labels.of({**dict(self.items), **more})

    def without(self, *names: str) -> Labels:
        """These labels without some."""
        return Labels(tuple(item for item in self.items if item[0] not in names))

    def only(self, names: Iterable[str]) -> Labels:
        """Those of these labels that have such names."""
        name_set = frozenset(names)
        return Labels(tuple(item for item in self.items if item[0] in name_set))

    def has(self, other: Labels) -> bool:
        """Whether all of the other labels are among these."""
        return set(other.items) <= set(self.items)

    def words(self) -> tuple[str, ...]:
        """Short words for titles: texts by their value, all others with their name.

        >>> Labels.of(attack="lira", fpr=0.01).words()
        ('lira', 'fpr=0.01')
        """
        return tuple(value if isinstance(value, str) else f"{name}={value_text(value)}" for name, value in self.items)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value_text(value)}" for name, value in self.items)


def value_text(value: LabelValue) -> str:
    """A value of a label as text.

    >>> value_text(0.0078125), value_text(1e-05), value_text(True)
    ('0.007812', '1e-05', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


NO_LABELS = Labels()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measured number. The observer adds run, round, level, client and source, so components cannot mislabel it."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1
    subject: str = ""
    labels: Labels = NO_LABELS

    @property
    def is_outside(self) -> bool:
        """Whether the value lies outside its interval by more than rounding; an end of NaN is no end.

        >>> Reading(metric="m", value=0.5, low=0.6, high=0.9).is_outside, Reading(metric="m", value=0.5).is_outside
        (True, False)
        """
        slack = 1e-9 * max(1.0, abs(self.value)) if math.isfinite(self.value) else 0.0
        return self.value < self.low - slack or self.value > self.high + slack


Scope = Literal["run", "round", "run_summary", "summary"]
"""The scope of a row.

- `run`: one run at one observed round;
- `round`: all runs at one observed round;
- `run_summary`: one run, each example at the last observed round in which its owner took part;
- `summary`: the same over all runs.
"""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A reading with its place: one row of `measurements.parquet`.

    Attributes:
        run: The run; None for all runs together.
        round: The observed round; None for the summary.
        level: Where the model was read.
        client: The client; NO_CLIENT for no single client.
        source: The kind of the component that measured.
        reading: The number.

    Examples:
        >>> reading = Reading(metric="auc", value=0.7)
        >>> Measurement(run=None, round=3, level="global", client=NO_CLIENT, source="membership", reading=reading).scope
        'round'
    """

    run: int | None
    round: int | None
    level: Level
    client: int
    source: str
    reading: Reading

    @property
    def run_number(self) -> int:
        """The run of a row of a single run; a `ValueError` otherwise."""
        return _number(self.run, "run")

    @property
    def round_number(self) -> int:
        """The round of a row of an observed round; a `ValueError` for a summary."""
        return _number(self.round, "round")

    @property
    def scope(self) -> Scope:
        """Which of run and round the row has."""
        if self.round is None:
            return "summary" if self.run is None else "run_summary"
        return "round" if self.run is None else "run"


def _number(number: int | None, name: str) -> int:
    if number is None:
        raise ValueError(f"a row of no single {name} has no number of the {name}")
    return number
