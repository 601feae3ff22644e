"""Checks of estimators and signals that read models of every round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.series import explain_unobserved
from fedmem.contracts.signal import AnySignal, signal_declaration
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe


def _every_round(estimators: Sequence[Estimator], observe: Observe, rounds: int, roster: str) -> Iterator[Problem]:
    is_every = observe.observed_rounds_of(rounds) == tuple(range(rounds + 1))
    for position, estimator in enumerate(estimators):
        if not estimator_declaration(estimator).needs_every_round:
            continue
        if not is_every or roster == "per_run" or not {"local", "global"} <= set(observe.levels):
            yield Problem(path=f"estimators[{position}]", message=explain_unobserved(kind_of(estimator)))


def _signals_of_every_round(signals: Sequence[AnySignal], observe: Observe, rounds: int) -> Iterator[Problem]:
    is_every = observe.observed_rounds_of(rounds) == tuple(range(rounds + 1))
    for position, signal in enumerate(signals):
        if signal_declaration(signal).needs_every_round and not is_every:
            yield Problem(
                path=f"signals[{position}]",
                message=f"{kind_of(signal)} follows runs from round to round, but not every round is observed. Write "
                "observe: {every: 1}, or leave the signal out",
            )


def _margins_alone(estimators: Sequence[Estimator]) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        if not estimator_declaration(estimator).gives_margins_alone:
            continue
        for path, attack in nested_components(estimator, f"estimators[{position}]"):
            if isinstance(attack, MembershipAttack) and _reads_more(attack):
                yield Problem(
                    path=path,
                    message=f"{kind_of(attack)} reads more than margins and inclusion, which is all "
                    f"that {kind_of(estimator)} gives it; use an attack such as {{kind: lira}}, or leave it out",
                )


def _reads_more(attack: MembershipAttack) -> bool:
    """Whether an attack declares that it reads anything besides margins and coins."""
    declared, needs = attack_declaration(attack), needs_of(attack)
    read = (*declared.reads, *declared.reads_series, *declared.reads_others, *needs.reads_signals)
    return bool(read) or needs.needs_population
