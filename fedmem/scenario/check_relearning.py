"""Checks of phases in which every run trains again on what the phase before forgot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.contracts.unlearner import Unlearner
from fedmem.errors import Problem
from fedmem.wording import choices

if TYPE_CHECKING:
    from fedmem.scenario.phases import After


def _learnt_again(after: After | None, unlearner: Unlearner | None) -> Iterator[Problem]:
    """Only the phase after the one that forgot may learn again, and it is the last."""
    if after is None:
        return
    before = after.scenario.get("after") or {}
    forgotten = (before.get("forget") or {}).get("kinds") or []
    if (before.get("relearn") or {}).get("kinds"):
        yield Problem(
            path="after.relearn",
            message="in the phase before, every run learns again what was forgotten. Random inclusion then says little "
            "about later models; make that phase the last one",
        )
    for position, kind in enumerate(after.relearn.kinds):
        path = f"after.relearn.kinds[{position}]"
        if kind not in forgotten:
            yield Problem(
                path=path,
                message=f"the phase before did not forget {kind}{choices(kind, forgotten)}; write "
                f"forget: {{kinds: [{kind}]}} in the phase before, or leave it out",
            )
        elif kind in after.forget.kinds:
            yield Problem(path=path, message=f"{kind} is also in forget of this phase; leave it out in one of both")
    if after.relearn and unlearner is not None:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} belongs to a phase that forgets, but this one learns again what was "
            "forgotten; write it in the phase before",
        )


def _relearning_read(
    estimators: Sequence[Estimator], probes: Sequence[Probe], after: After | None
) -> Iterator[Problem]:
    """Components that take random inclusion for what is trained on."""
    if after is None or not after.relearn:
        return
    for field, components in (("probes", probes), ("estimators", estimators)):
        for position, component in enumerate(components):
            if not needs_of(component).reads_relearning:
                yield Problem(
                    path=f"{field}[{position}]",
                    message=f"{kind_of(component)} takes runs without an example for runs that do not train on it. In "
                    f"this phase every run trains on {', '.join(after.relearn.kinds)}; leave it out, as in {field}: []",
                )


def _relearning_compared(estimators: Sequence[Estimator], after: After | None) -> Iterator[Problem]:
    """Estimators of relearning need a phase that relearns, and the models from before forgetting."""
    for position, estimator in enumerate(estimators):
        if not estimator_declaration(estimator).needs_relearning:
            continue
        path = f"estimators[{position}]"
        if after is None or not after.relearn:
            yield Problem(
                path=path,
                message=f"{kind_of(estimator)} compares how fast examples are learnt again, but this training learns "
                "none again; write it below `then`, in a phase with relearn: {kinds: [...]}",
            )
        elif twice := _forgotten_twice(after):
            yield Problem(
                path=path,
                message=f"{kind_of(estimator)} compares with the models with which the phase before began, but an "
                f"earlier phase had already forgotten {', '.join(twice)}. Learn {', '.join(twice)} again right after "
                "the first phase that forgets them",
            )
        elif "global" not in after.scenario["observe"]["levels"]:
            yield Problem(
                path=path,
                message=f"{kind_of(estimator)} reads the aggregates from before the examples were forgotten, which "
                "are not observed; add global to observe.levels of the phase before",
            )


def _forgotten_twice(after: After) -> list[str]:
    """The kinds that are learnt again and were forgotten before the phase before."""
    from fedmem.scenario.phases import forgotten_until

    earlier = forgotten_until((after.scenario.get("after") or {}).get("scenario") or {})
    return [kind for kind in after.relearn.kinds if kind in earlier.kinds]
