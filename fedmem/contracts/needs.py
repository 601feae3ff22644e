"""Declarations of probes, estimators and attacks: their needs of a scenario, and their measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmem.contracts.declarations import Declaration, class_value, declare, read_declaration
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import LABELS, Label, Level

YES_OR_NO = "true or false"


@dataclass(frozen=True, kw_only=True)
class Needs(Declaration):
    """The needs of a component that measures, or of one inside it; by default none.

    Attributes:
        measures: The measures that it yields. A reading of another measure fails the run.
        row_labels: The labels that its readings have besides `fedmem.contracts.measurement.LABELS`.
        min_runs: Number of runs without which its result has no meaning.
        needs_population: Whether it compares examples with a population that no client trains on.
        needs_canaries: Whether it ranks canaries among fresh references.
        needs_test: Levels at which it needs the outputs of models on the test set. A scenario that observes one of them
            without the test set (`observe.test.levels`) is refused. It is not declared where a level without test set
            has fewer results, but no wrong ones.
        ranks_test: Whether it ranks single outputs on the test set, which float32 would tie (`observe.test.precision`).
        compares_held_out: Whether it compares examples that are in with examples that are held out. Such a comparison
            is wrong where copies that no coin masks (`unmasked`) are trained on in every run. It is also wrong where
            each run picks its own clients by losses or norms. Such scenarios are refused.
        reads_signals: Names of the quantities of signals that it reads, such as `grad_norm`. A scenario whose signals
            read none of that name, or not at every observed round, is refused.
        reads_set_signals: The same for signals on another set than the audit set, such as `client_value`.
        needs_independent_runs: Whether it counts every run as an independent trial, so that it cannot read twins.
        counts_groups: Whether it takes examples that are in or out together (`included`) as one draw. A component that
            does not say so is refused with such examples. A subclass with methods of its own declares it again.
        coin_laws: The laws of random inclusion (`coins.law`) under which its results are right. Under another law, a
            scenario that lists the component is refused. A subclass with methods of its own declares it again.
        reads_relearning: Whether it has a meaning where every run trains on examples again that some had trained on
            before (`relearn`). A component that does not say so is refused there.
        reads_gradients: Whether it reads an update as a gradient; its clients must be `ScheduledClient`.
        draws_samples: Whether it draws samples of the models, whose network must then be a generative model. See
            `fedmem.contracts.sampling`.
        names_injections: Its fields that name injections, one or a tuple. A name that no injection has is refused.
        densities: Whether it has a meaning where data have no labels, so that models answer with the log-density of
            each row. The margin is then that log-density, the loss minus it, and nothing is right or wrong. A component
            that does not say so is refused there. A subclass with methods of its own declares it again.
    """

    measures: tuple[Measure, ...] = declare((), "a tuple of fedmem.contracts.measure.Measure")
    row_labels: tuple[Label, ...] = declare((), "a tuple of fedmem.contracts.measurement.Label")
    min_runs: int = declare(1, "a number of runs")
    needs_population: bool = declare(False, YES_OR_NO)
    needs_canaries: bool = declare(False, YES_OR_NO)
    needs_test: tuple[Level, ...] = declare((), "a tuple of levels")
    ranks_test: bool = declare(False, YES_OR_NO)
    compares_held_out: bool = declare(False, YES_OR_NO)
    reads_signals: tuple[str, ...] = declare((), "a tuple of names of measures")
    reads_set_signals: tuple[str, ...] = declare((), "a tuple of names of quantities")
    needs_independent_runs: bool = declare(False, YES_OR_NO)
    counts_groups: bool = declare(False, YES_OR_NO, renewed=True)
    coin_laws: tuple[str, ...] = declare(("balanced",), "a tuple of laws of random inclusion", renewed=True)
    reads_relearning: bool = declare(False, YES_OR_NO)
    reads_gradients: bool = declare(False, YES_OR_NO)
    draws_samples: bool = declare(False, YES_OR_NO)
    names_injections: tuple[str, ...] = declare((), "a tuple of names of fields")
    densities: bool = declare(False, YES_OR_NO, renewed=True)


def needs_of(component: object) -> Needs:
    """The needs of a probe, an estimator or an attack; not of components inside it.

    >>> from fedmem.attacks.lira import Lira
    >>> needs_of(Lira()).min_runs
    8
    """
    return read_declaration(Needs, component)


@dataclass(frozen=True)
class Declared:
    """The measures and further labels that a component declares, by name."""

    measures: Mapping[str, Measure]
    labels: Mapping[str, Label]


def declared_by(component: object) -> Declared:
    """The declarations of a component or its class, and the labels that every component may use.

    >>> sorted(declared_by(None).labels)[:2]
    ['adjacency', 'attack']
    """
    row_labels: tuple[Label, ...] = _declaration(component, "row_labels")
    return Declared(
        {item.name: item for item in measures_of(component)}, {**LABELS, **{item.name: item for item in row_labels}}
    )


def measures_of(component: object) -> tuple[Measure, ...]:
    """The measures that a component or its class declares; empty if it declares none."""
    measures: tuple[Measure, ...] = _declaration(component, "measures")
    return measures


def _declaration(component: object, name: str) -> Any:
    """The declaration of a component or its class under a name."""
    if isinstance(component, type):
        return class_value(component, Needs, name)
    return getattr(needs_of(component), name)
