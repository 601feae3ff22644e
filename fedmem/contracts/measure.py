"""Measures: name, range, unit, direction and meaning of a number, and what it is not.

The component that produces a number declares its measures: `measures: ClassVar[tuple[Measure, ...]]`. Tables, figures,
the glossary, `--measure` and comparisons read these declarations and no list of names. A component that yields a
measure that it does not declare is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Direction = Literal["higher is worse", "higher is better", "neither"]
"""The meaning of a high value: more memorisation or leakage, a better model, or neither."""

Section = Literal[
    "", "utility", "reconstruction", "extraction", "cross-influence", "client influence", "proxies", "privacy", "none"
]
"""Where the table of a run shows a measure. Empty: LOCAL AND GLOBAL for values of kinds, else OTHER MEASURES.

`proxies` is a table of the report: over in runs, over out runs, and the measure named `gain`."""

Showing = Literal["", "memorised", "exposed", "extracted", "detectable"]
"""The evidence that a value above its null gives about a kind of audit example."""

DERIVED: Mapping[str, str] = {
    "null": "without memorisation",
    "p": "p-value of no memorisation",
    "difference": "difference",
    "guess": "guess without the update",
    "ceiling": "largest possible",
    "permitted": "permitted by the guarantee",
    "bound": "largest value under the guarantee",
    "control": "without noise",
}
"""Endings of the names of rows that belong to a measure, as in `auc.null`. They need no declaration of their own."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One kind of number that a component yields.

    Attributes:
        name: The column `metric` of its rows.
        title: Its name in tables and figures.
        means: What it is, in one or two sentences.
        is_not: What it is often taken for, and is not.
        unit: `share` for shares and their differences, which are compared in percentage points. `yes or no` for values
            0 and 1 of single examples, whose means have Wilson's interval. Otherwise the unit as it is printed.
        range: Smallest and largest possible value.
        null: The value without memorisation or leakage; NaN if there is none, or if each row `<name>.null` has its own.
        direction: What a high value means.
        digits: Decimals in tables.
        headline: Whether it is in the short table and tested in comparisons.
        shows: What a value above its null shows of a kind, on the first screen and in its verdict. Either its examples
            are memorised (`memorised`, `exposed`, `extracted`), or their membership is detectable. Empty: The measure
            is not on the first screen. For `extracted` the first screen shows `<name>.difference`.
        section: Where the table shows it.
        aside: A remark after its title in headings.
        terms: Words of its title and rows, each with one line for the legend.
        order: Its place among the measures of a table, smaller first.
        saturated: The values up to the first and from the second up are too near an end to be compared.
        ranked: Whether it ends with the number of references: `value` for an exposure by rank, `gain` for one minus
            that of runs without the example.
        bound: The member of `fedmem.privacy.guarantee.Guarantee` that bounds it; empty if none does. With `identified`,
            `fedmem.privacy.identification_bounds` bounds it, from its rows with the label `victim`.
        interval_of: The quantity of its intervals where that is not the value, which then may lie outside; empty if
            they are about the value. A reading whose value lies outside its interval is refused without this reason.
        difference: The title of the difference between examples that are in and examples held out. Empty if a
            comparison of runs does not show that difference.
        gain: The measure of the same values over runs with the example, minus those over runs without it. It shows
            memorisation where the values themselves have no known null; empty if there is none.
        trained_on: The sign of the gain that training on an example is expected to give: it lowers the value, or
            makes it higher. Empty where neither is known. Lists of examples by a gain that it lowers start at the
            lowest.
        against: The label of whole numbers against which a figure draws its values, such as the rounds since an event.
            Empty: its values are no curve.
        compares: The evidence of a single example by which its in and out runs are compared. An exact test of one
            example reads it. Empty if there is none. For the statistic `probability` it is the margin.

    Examples:
        >>> share = Measure(name="hits", title="hits", means="Share of hits.", unit="share", range=(0.0, 1.0))
        >>> share.is_rate, share.scale, share.range_of("hits.difference")
        (True, 100.0, (-1.0, 1.0))
    """

    name: str
    title: str
    means: str
    is_not: str = ""
    unit: str = ""
    range: tuple[float, float] = (-math.inf, math.inf)
    null: float = math.nan
    direction: Direction = "higher is worse"
    digits: int = 3
    headline: bool = False
    shows: Showing = ""
    section: Section = ""
    aside: str = ""
    terms: tuple[tuple[str, str], ...] = ()
    order: int = 9
    saturated: tuple[float, float] = (-math.inf, math.inf)
    ranked: Literal["", "value", "gain"] = ""
    bound: Literal["", "auc", "tpr", "exposure", "memorisation", "identified"] = ""
    difference: str = ""
    compares: Literal["", "correct", "margin", "rank"] = ""
    interval_of: str = ""
    gain: str = ""
    trained_on: Literal["", "lower", "higher"] = ""
    against: str = ""

    @property
    def is_rate(self) -> bool:
        """Whether it is a share between 0 and 1."""
        return self.unit == "share" and self.range == (0.0, 1.0)

    @property
    def is_yes_or_no(self) -> bool:
        """Whether each single value is 0 or 1."""
        return self.unit == "yes or no"

    @property
    def unit_text(self) -> str:
        """The unit as tables print it: shares have none."""
        return "" if self.unit in ("share", "yes or no") else self.unit

    @property
    def is_lowered_by_training(self) -> bool:
        """Whether it is a difference in − out of a proxy that training on an example lowers."""
        return self.trained_on == "lower" and self.section == "proxies" and self.null == 0

    @property
    def sign_text(self) -> str:
        """Which sign of the gain means trained on, as a sentence after a space; empty where that is not known."""
        if not self.trained_on:
            return ""
        sign, verb = ("negative", "lowers") if self.trained_on == "lower" else ("positive", "raises")
        return f" In − out is {sign} where training on an example {verb} the value, as is expected."

    @property
    def scale(self) -> float:
        """The factor of a difference for its unit: 100 for percentage points."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def difference_unit(self) -> str:
        """The unit of a difference times `scale`."""
        return "points" if self.unit == "share" else self.unit_text

    def range_of(self, metric: str) -> tuple[float, float]:
        """Smallest and largest value of the measure or, for `<name>.difference`, of a difference of two values."""
        low, high = self.range
        return (low - high, high - low) if metric.endswith(".difference") else self.range


def gain_of(measure: Measure) -> Measure:
    """The measure `<name>_gain` of the same values over runs with the example, minus those over runs without it.

    It is 0 where training on an example changes nothing.

    >>> gain = gain_of(Measure(name="loss", title="loss", means="The loss.", range=(0.0, 1.0), unit="nats"))
    >>> gain.name, gain.range, gain.null, gain.unit
    ('loss_gain', (-1.0, 1.0), 0.0, 'nats')
    """
    return replace(
        measure,
        name=f"{measure.name}_gain",
        title=f"{measure.title}, in − out",
        means=f"{measure.title[:1].upper()}{measure.title[1:]} over runs with the example minus that over runs without "
        "it.",
        range=measure.range_of(f"{measure.name}.difference"),
        null=0.0,
        gain="",
        terms=(),
        aside="",
    )


def as_proxy(measure: Measure) -> Measure:
    """The same measure in the table of proxies, with `<name>_gain` as its gain; neither side is good or bad.

    >>> proxy = as_proxy(Measure(name="el2n", title="EL2N", means="Length of the error."))
    >>> proxy.section, proxy.gain, proxy.direction
    ('proxies', 'el2n_gain', 'neither')
    """
    return replace(measure, section="proxies", gain=f"{measure.name}_gain", direction="neither")


def base_of(metric: str) -> str:
    """The name of the measure that a row belongs to.

    >>> base_of("auc.null"), base_of("margin.difference"), base_of("epsilon_hat"), base_of("own.thing")
    ('auc', 'margin', 'epsilon_hat', 'own.thing')
    """
    base, _, ending = metric.rpartition(".")
    return base if base and ending in DERIVED else metric


def differing_facts(first: Measure, second: Measure) -> list[str]:
    """The facts in which two declarations of one measure contradict each other: unit, range and direction.

    >>> bits = Measure(name="a", title="a", means="A.", unit="bits")
    >>> differing_facts(bits, Measure(name="a", title="other", means="A.", unit="nats"))
    ["unit 'bits' and 'nats'"]
    """
    pairs = ((name, getattr(first, name), getattr(second, name)) for name in ("unit", "range", "direction"))
    return [f"{name} {one!r} and {other!r}" for name, one, other in pairs if one != other]


def by_name(measures: Iterable[Measure]) -> dict[str, Measure]:
    """The measures by name, in the order of tables; of equal names the first.

    >>> first = Measure(name="a", title="a", means="A.", order=2)
    >>> list(by_name([first, Measure(name="b", title="b", means="B.", order=1)]))
    ['b', 'a']
    """
    measures_by_name: dict[str, Measure] = {}
    for measure in sorted(measures, key=lambda measure: measure.order):
        measures_by_name.setdefault(measure.name, measure)
    return measures_by_name


def to_json(measure: Measure) -> dict[str, Any]:
    """The measure in types of strict JSON; infinity and NaN become text.

    >>> from_json(to_json(Measure(name="a", title="a", means="A."))).range
    (-inf, inf)
    """
    return {key: _plain_name(value) for key, value in asdict(measure).items()}


def from_json(stored: Mapping[str, Any]) -> Measure:
    """The measure that `to_json` wrote; fields that this version does not have are left out."""
    field_types = {item.name: item.type for item in fields(Measure)}
    values: dict[str, Any] = {name: value for name, value in stored.items() if name in field_types}
    for name in ("range", "saturated"):
        values[name] = tuple(float(end) for end in values[name])
    values["null"] = float(values["null"])
    values["terms"] = tuple((str(term), str(text)) for term, text in values["terms"])
    return Measure(**values)


def _plain_name(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_name(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
