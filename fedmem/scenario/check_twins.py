"""Checks of runs that share coins or batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.errors import Problem
from fedmem.scenario.coins import Coins


def _twins(runs: int, twins: int, coins: Coins) -> Iterator[Problem]:
    """Each example is in exactly half of the coin rows, so that their number is even."""
    if coins.law == "balanced" and twins > 1 and runs % (2 * twins) and not (runs > 1 and runs % 2):
        fitting = 2 * twins * max(1, round(runs / (2 * twins)))
        yield Problem(
            path="twins",
            message=f"{runs} runs cannot be divided into sets of {twins} twins so that every example is in half of the "
            f"sets. Set runs to a multiple of {2 * twins}, such as {fitting}",
        )


def _twin_noise(twins: int, batches: str, initial_weights: object, roster: str) -> Iterator[Problem]:
    """Twins differ in training noise alone, so there must be some."""
    if twins > 1 and batches == "shared" and initial_weights != "per_run" and roster != "per_run":
        yield Problem(
            path="twins",
            message=f"{twins} twins would be the same run, since they share batches, initial weights and "
            "cohorts. Write batches: per_run or initial_weights: per_run, or twins: 1",
        )


def _independent_runs(estimators: Sequence[Estimator], probes: Sequence[Probe], twins: int) -> Iterator[Problem]:
    """Components that count each run as a trial of its own."""
    for field, components in (("probes", probes), ("estimators", estimators)):
        for position, component in enumerate(components if twins > 1 else ()):
            for path, part in nested_components(component, f"{field}[{position}]"):
                if needs_of(part).needs_independent_runs:
                    yield Problem(
                        path=path,
                        message=f"{kind_of(part)} counts every run as an independent trial, which twins are not; write "
                        "twins: 1, or leave it out",
                    )


def _twins_compared(estimators: Sequence[Estimator], twins: int) -> Iterator[Problem]:
    """Estimators of the noise between twins."""
    for position, estimator in enumerate(estimators):
        if estimator_declaration(estimator).needs_twins and twins == 1:
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares twins, but twins is 1; write twins: 2, or leave it out",
            )
