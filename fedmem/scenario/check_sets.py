"""Checks of the sets of examples that models are evaluated on beside the audit examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.signal import AnySignal
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe


def _population(estimators: Sequence[Estimator], signals: Sequence[AnySignal], population: int) -> Iterator[Problem]:
    parts: list[tuple[str, object]] = [(f"estimators[{position}]", part) for position, part in enumerate(estimators)]
    parts += [(f"signals[{position}]", part) for position, part in enumerate(signals)]
    for whole, part in parts:
        for path, component in nested_components(part, whole):
            if needs_of(component).needs_population and not population:
                yield Problem(
                    path=path,
                    message=f"{kind_of(component)} compares examples with a population that no model trains on, but "
                    "population is 0; set population to 200 or more, or leave it out",
                )


def _sets(estimators: Sequence[Estimator], observe: Observe) -> Iterator[Problem]:
    """The test set and the population are evaluated at observed levels, and at those where estimators need them."""
    for name, observed in (("test", observe.test), ("population", observe.population)):
        levels = observed.levels or ()
        for place, level in enumerate(levels):
            path = f"observe.{name}.levels[{place}]"
            if level not in observe.levels:
                yield Problem(path=path, message=level_unobserved(level, observe))
            elif level in levels[:place]:
                yield Problem(path=path, message=f"level {level} is named twice; name each level once")
    for position, estimator in enumerate(estimators):
        for path, component in nested_components(estimator, f"estimators[{position}]"):
            yield from _needed_levels(component, path, observe)
            if needs_of(component).ranks_test and observe.test.precision == "float32":
                yield Problem(
                    path="observe.test.precision",
                    message=f"{kind_of(component)} ({path}) ranks outputs on the test set, and float32 would make some "
                    f"of them equal; write float64, or leave {kind_of(component)} out",
                )


def _needed_levels(component: object, path: str, observe: Observe) -> Iterator[Problem]:
    """A component needs outputs on a set at levels at which the set is not evaluated."""
    needs, kind = needs_of(component), kind_of(component)
    at_all: tuple[str, ...] = ("local", "global") if needs.needs_population else ()
    for name, words, needed in (("test", "test set", needs.needs_test), ("population", "population", at_all)):
        levels = getattr(observe, name).levels or observe.levels
        missing = " and ".join(level for level in needed if level in observe.levels and level not in levels)
        if missing:
            yield Problem(
                path=f"observe.{name}.levels",
                message=f"{kind} ({path}) needs the outputs of models on the {words} at level {missing}. Models are "
                f"evaluated on it at level {' and '.join(levels)} alone; add {missing}, or leave {kind} out",
            )


def level_unobserved(level: str, observe: Observe) -> str:
    """That a level is not observed, and what to do about it."""
    return (
        f"level {level} is not observed, since observe.levels is [{', '.join(observe.levels)}]; add it there, or leave "
        "it out here"
    )
