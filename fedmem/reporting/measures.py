"""The measures of a run: collected once from the components that declare them, never listed here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from fedmem.contracts.attack import AttackDeclaration
from fedmem.contracts.declarations import class_value
from fedmem.contracts.families import kind_of
from fedmem.contracts.measure import Measure, base_of, by_name, from_json, to_json
from fedmem.contracts.measurement import LABELS, NO_LABELS, Labels, LabelValue, value_text
from fedmem.contracts.needs import declared_by, measures_of
from fedmem.estimation import estimates
from fedmem.estimation.saturation import MARK, SaturationZone, zone_of
from fedmem.privacy import spending
from fedmem.reporting.cells import rate
from fedmem.scenario.catalogue import kinds, load

if TYPE_CHECKING:
    from fedmem.results.read import Run
    from fedmem.scenario.scenario import Scenario

MEASURING = ("estimator", "signal", "probe")
"""The families whose components declare measures."""

WRITTEN = (*estimates.MEASURES, *spending.MEASURES)
"""The measures of rows that no component yields."""


@cache
def shipped_measures() -> Mapping[str, Measure]:
    """The measures of all estimators and probes of the catalogue, and of other sources of rows, in order.

    >>> shipped_measures()["auc"].title, shipped_measures()["epsilon"].unit
    ('AUC', 'nats')
    """
    return by_name([*(measure for measures in shipped_by().values() for measure in measures.values()), *WRITTEN])


@cache
def shipped_by() -> Mapping[str, Mapping[str, Measure]]:
    """The measures of each estimator and probe of the catalogue, by its kind and their names."""
    classes = {kind: load(family, kind) for family in MEASURING for kind in kinds(family)}
    return {kind: {measure.name: measure for measure in measures_of(cls)} for kind, cls in classes.items()}


@cache
def label_titles() -> Mapping[str, Mapping[str, str]]:
    """Label -> value -> what tables call it, as the components of the catalogue declare it.

    >>> label_titles()["view"]["aggregate"]
    'the aggregate'
    """
    classes = [load(family, kind) for family in MEASURING for kind in kinds(family)]
    titles: dict[str, dict[str, str]] = {}
    for label in (declared_label for cls in classes for declared_label in declared_by(cls).labels.values()):
        titles.setdefault(label.name, {}).update(label.titles)
    return titles


@cache
def label_meanings() -> Mapping[str, str]:
    """Label -> what it says, as the catalogue and its components declare it.

    >>> label_meanings()["attack"]
    'the kind of the membership attack'
    """
    classes = [load(family, kind) for family in MEASURING for kind in kinds(family)]
    labels = (label for cls in classes for label in declared_by(cls).labels.values())
    return {label.name: label.means for label in (*labels, *LABELS.values())}


def label_title(name: str, value: LabelValue) -> str:
    """The title that tables give to a label with this value.

    >>> label_title("scale", "margin"), label_title("place", "owner"), label_title("step", 2)
    ('from margins', 'owner', 'step 2')
    """
    if isinstance(value, str):
        return label_titles().get(name, {}).get(value, value)
    return f"{name} {value_text(value)}"


def measures_of_scenario(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """The names of the measures of each estimator and probe, by its kind."""
    parts = (*scenario.estimators, *scenario.signals, *scenario.probes)
    return {kind_of(part): tuple(measure.name for measure in measures_of(part)) for part in parts}


def measures_to_store(scenario: Scenario) -> list[dict[str, Any]]:
    """The measures of components that are not in the catalogue, for the manifest.

    A reader of the folder then needs no module of the user, and runs no code of the user.
    """
    parts = (*scenario.estimators, *scenario.signals, *scenario.probes)
    foreign = [part for part in parts if ":" in kind_of(part)]
    return [
        to_json(measure) for measure in by_name(measure for part in foreign for measure in measures_of(part)).values()
    ]


def measures_of_run(run: Run) -> Mapping[str, Measure]:
    """The measures that a run may have, by name in the order of tables: those of the catalogue and those it stores."""
    stored_measures = [from_json(entry) for entry in run.manifest.get("measures") or ()]
    return by_name(
        [
            *stored_measures,
            *(
                measure
                for name, measure in shipped_measures().items()
                if name not in {stored_measure.name for stored_measure in stored_measures}
            ),
        ]
    )


def measure_of(metric: str, measures: Mapping[str, Measure]) -> Measure:
    """The declaration of a measure; one with its name alone where no component declares it."""
    base = base_of(metric)
    return measures.get(base) or Measure(name=base, title=base.replace("_", " "), means="", section="none")


def zone_of_metric(metric: str, references: Iterable[int] = ()) -> SaturationZone:
    """The saturated values of a measure of the catalogue.

    >>> zone_of_metric("auc").top, zone_of_metric("exposure", [1023]).top
    (0.99, 9.5)
    """
    return zone_of(measure_of(metric, shipped_measures()), references)


@dataclass(frozen=True, kw_only=True)
class AttackName:
    """How tables name a membership attack: its title, a line for the legend, and its precedence."""

    title: str
    means: str = ""
    precedence: int = 1


@cache
def attack_names() -> Mapping[str, AttackName]:
    """The names of all attacks of the catalogue that declare one, by kind.

    >>> attack_names()["lira"].title
    'LiRA'
    """
    classes = {kind: load("attack", kind) for kind in kinds("attack")}
    return {
        kind: AttackName(
            title=class_value(cls, AttackDeclaration, "title"),
            means=class_value(cls, AttackDeclaration, "legend"),
            precedence=class_value(cls, AttackDeclaration, "precedence"),
        )
        for kind, cls in classes.items()
        if class_value(cls, AttackDeclaration, "title") is not None
    }


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A measure as one run has it, with the labels that tell it from its other variants, such as the attack.

    Attributes:
        measure: Its declaration.
        labels: Its labels, apart from the place.
        title: Its title with these labels.
        null: The value without memorisation; NaN where it is not the same for all kinds.
        nulls: Those of all kinds, sorted, where they differ.
        headline: Whether it is in the short table.
    """

    measure: Measure
    title: str
    null: float
    labels: Labels = NO_LABELS
    nulls: tuple[float, ...] = ()
    headline: bool = True

    @property
    def metric(self) -> str:
        """The column `metric` of its rows."""
        return self.measure.name

    @property
    def unit(self) -> str:
        """The unit that is printed."""
        return self.measure.unit_text

    @property
    def digits(self) -> int:
        """Decimals in tables."""
        return self.measure.digits

    @property
    def is_rate(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.measure.is_rate

    @property
    def slug(self) -> str:
        """A name for files."""
        text = "_".join([*self.labels.words(), self.metric])
        return "".join(character if character.isascii() and character.isalnum() else "_" for character in text)

    @property
    def full_name(self) -> str:
        """The title with its aside."""
        return f"{self.title} ({self.measure.aside})" if self.measure.aside else self.title

    @property
    def heading(self) -> str:
        """The title with its unit and the value that no memorisation gives."""
        null = self._null
        title = f"{self.full_name}{f', {self.unit}' if self.unit else ''}"
        return f"{title} (without memorisation: {null})" if null else title

    @property
    def _null(self) -> str:
        """The value without memorisation as text; empty if there is none."""
        if self.measure.bound == "tpr":
            return "a little above that FPR" if math.isnan(self.null) else rate(self.null)
        ends = (self.nulls[0], self.nulls[-1]) if self.nulls else (self.null,)
        return "" if any(map(math.isnan, ends)) else " to ".join(dict.fromkeys(f"{end:.3g}" for end in ends))


TABLE_TERMS: Mapping[str, str] = {
    "≈": "the interval spans more than half of 0 to 1: read it, not the number",
    "global / local": "retention, the share of the local effect that the aggregate retains",
    "first higher": "the interval of first − second lies above zero",
    MARK: "saturated: within half a bit of the ceiling of exposure, log2(references + 1). Other measures are saturated "
    "within .01 (AUC, rates, accuracy) or .05 (memorisation) of their end. "
    "A difference of two such values is hidden; of one it may be larger than it is shown (capped)",
    "both saturated": "both values are at the end of what the measure shows, so that a difference could not be seen",
    "capped": "one of both values is saturated, so that the true difference may be larger",
    " p ": "of no memorisation: twice the share of other random inclusions that give as much, or as little. All "
    "of them count where they are few; else they are drawn (Monte Carlo), and n of the rows `.p` says how many",
    "released": "the last aggregate, read on all examples",
    "not significant": "of a difference: its interval contains zero, so the data do not show on which side it is. "
    "Of a kind: the interval contains the value without memorisation, or the adjusted p is above 0.05. "
    "This p is adjusted over all measures of the kind at the level (Holm). Unclear: interval and p disagree",
    "undefined": "no value or no interval exists",
    "no interval": "fewer than eight runs that did not diverge, fewer than eight examples, all values alike, or a rate "
    "of 0 or 1",
    "at most": "the largest value that the guaranteed epsilon allows, for any attack",
}
"""The meaning of other words of the table, one line each."""


def terms_of(measures: Mapping[str, Measure]) -> Iterator[tuple[str, str]]:
    """Every word of tables that needs a line in the legend, in the order of the table.

    First those of measures of kinds, with the attacks; then the words of the table itself; then all others.
    """
    first = [measure for measure in measures.values() if measure.section in ("", "reconstruction")]
    places = [place for place, measure in enumerate(first) if measure.bound in ("auc", "tpr")] or [len(first)]
    for measure in first[: places[0]]:
        yield from measure.terms
    yield from ((name.title, name.means) for name in attack_names().values() if name.means)
    for measure in first[places[0] :]:
        yield from measure.terms
    yield from TABLE_TERMS.items()
    for measure in measures.values():
        if measure.section not in ("", "reconstruction"):
            yield from measure.terms
