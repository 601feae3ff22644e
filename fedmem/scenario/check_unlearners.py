"""Checks of unlearners, and of estimators that compare a phase with the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.strategy import why_more_is_sent
from fedmem.contracts.unlearner import Unlearner, unlearner_declaration
from fedmem.errors import Problem
from fedmem.scenario import catalogue

if TYPE_CHECKING:
    from fedmem.scenario.phases import After


def _unlearner_place(unlearner: Unlearner | None, after: After | None) -> Iterator[Problem]:
    """An unlearner belongs to a phase in which something is forgotten."""
    if unlearner is None or (after is not None and _forgets_more(after)):
        return
    kind = kind_of(unlearner)
    if after is None:
        text = (
            f"{kind} acts before a phase; write it below then, as in "
            f"then: [{{rounds: 5, forget: {{kinds: [...]}}, unlearner: {{kind: {kind}}}}}]"
        )
    elif after.forget:
        text = (
            f"{kind} has nothing to forget, since earlier phases forgot the same; write it in the first phase that "
            "forgets, or leave unlearner out"
        )
    else:
        text = f"{kind} has nothing to forget; write forget: {{kinds: [...]}} in the same phase, or leave unlearner out"
    yield Problem(path="unlearner", message=text)


def _forgets_more(after: After) -> bool:
    """Whether a phase forgets what no phase before it forgot."""
    from fedmem.scenario.phases import forgotten_until

    earlier = forgotten_until(after.scenario)
    forget = after.forget
    return bool({*forget.kinds} - {*earlier.kinds} or {*forget.clients} - {*earlier.clients})


def _unlearner_population(unlearner: Unlearner | None, population: int) -> Iterator[Problem]:
    if unlearner is not None and unlearner_declaration(unlearner).needs_population and not population:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} reads the loss on the population, but population is 0; write "
            "population: 100",
        )


def _unlearner_first(unlearner: Unlearner | None, after: After | None) -> Iterator[Problem]:
    if unlearner is None or after is None or after.phase == 1:
        return
    if unlearner_declaration(unlearner).without_windows:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} replays the first training, but this is {after.title}; use it in the first "
            "phase of `then`",
        )


def _unlearner_models(unlearner: Unlearner | None, after: After | None) -> Iterator[Problem]:
    """The first training must store the models that the unlearner reads, of all runs."""
    if unlearner is None or after is None:
        return
    declared = unlearner_declaration(unlearner)
    needed = declared.stored_models
    if needed is None or (declared.without_windows and after.phase > 1):
        return
    by_level = {level: sorted(rounds) for level, rounds in needed(after.scenario["rounds"]).items() if rounds}
    saved = (after.scenario.get("save") or {}).get("models") or {"rounds": [], "levels": [], "runs": None}
    missing = [
        level
        for level, rounds in by_level.items()
        if level not in saved["levels"] or not set(rounds) <= set(saved["rounds"]) or saved["runs"] is not None
    ]
    if missing:
        rounds = sorted({number for of_level in by_level.values() for number in of_level})
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} reads stored {' and '.join(missing)} models of all runs before the phase; "
            f"write save: {{models: {{rounds: {rounds}, levels: [{', '.join(by_level)}]}}}} there, "
            "and observe these rounds",
        )


def _unlearner_strategy(unlearner: Unlearner | None, after: After | None) -> Iterator[Problem]:
    """Stored models say how clients were trained only where the server sent them the model alone."""
    if unlearner is None or after is None:
        return
    declared = unlearner_declaration(unlearner)
    if declared.stored_models is None and declared.trained_rounds is None:
        return
    strategy = catalogue.build("strategy", after.scenario["strategy"])
    reason = why_more_is_sent(strategy)
    if reason is not None:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} needs clients that were sent the model alone, but strategy "
            f"{kind_of(strategy)} of the phase before {reason}. Write strategy: {{kind: fedavg}} there, or use an "
            "unlearner that reads no stored models, such as gradient_ascent",
        )


def _phase_compared(estimators: Sequence[Estimator], after: After | None) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        if after is None and estimator_declaration(estimator).needs_phase:
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares a phase with the one before, but this training follows none; "
                "write it below `then`, in the estimators of a phase",
            )
