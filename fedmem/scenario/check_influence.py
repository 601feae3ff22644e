"""Checks of estimators that read the influence of audit examples on targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.signal import AnySignal, signal_declaration
from fedmem.errors import Problem


def _influence_read(estimators: Sequence[Estimator], signals: Sequence[AnySignal]) -> Iterator[Problem]:
    """Estimators of influence on targets need a signal that has some."""
    if any(signal_declaration(signal).targets for signal in signals):
        return
    for position, estimator in enumerate(estimators):
        if estimator_declaration(estimator).reads_influence:
            kind = kind_of(estimator)
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} reads influence on targets, but no signal has any; write for example "
                f"{{kind: tracin, targets: 40}} in signals, or leave {kind} out",
            )
