"""Readings of one reconstruction attack: of each victim and control, and of the attack as a whole."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.measurement import Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.types import IntArray
from fedmem.errors import RunError
from fedmem.modalities.loss import UNASKED
from fedmem.modalities.texts import in_proportion
from fedmem.probes._cases import Case
from fedmem.probes._victims import Victim

CONTROL = ",coin=out"
"""The word in the setting of readings of controls."""


def checked(case: Case, found: Reconstruction) -> Reconstruction:
    """Attacks may come from anywhere: refuse what cannot be scored."""
    if len(found.inputs) == 0 or not np.isfinite(found.inputs).all():
        raise RunError(
            f"run {case.transition.run}, round {case.transition.round}, client {case.transition.client}: the attack "
            f"on view {case.view} must return finite images, at least one; it returned {len(found.inputs)}, "
            f"{np.count_nonzero(~np.isfinite(found.inputs))} of their values not finite"
        )
    return found


def of_victim(victim: Victim) -> list[Reading]:
    """Readings of one victim or control, the telling ones first.

    The kind comes last in the setting, because a label may hold anything.
    """
    coin = CONTROL if victim.control else ""
    about, kind = f"{victim.case.setting}{coin},holder={victim.holder}", f",kind={victim.kind}"
    among = {"identified": f",gallery={victim.gallery},peers={victim.peers}"}
    asked = {} if math.isnan(victim.identified) else {"identified": victim.identified}
    return [
        Reading(metric=metric, value=value, subject=str(victim.subject), setting=about + among.get(metric, "") + kind)
        for metric, value in {**asked, **victim.values}.items()
    ]


def of_attack(case: Case, found: Reconstruction, context: Context) -> list[Reading]:
    """Readings of the attack as a whole."""
    classes, truth = context.federation.num_classes, context.federation.store.targets[case.rows]
    labels, true = (some[some != UNASKED] for some in (found.labels, truth))
    whole = len(true) if truth.ndim > 1 else 0
    guess = np.arange(len(labels)) % classes
    if truth.ndim > 1:
        # tokens are far from equally frequent, and who guesses knows that
        known = context.federation.population.targets
        guess = in_proportion(known, len(true))[0] if (known != UNASKED).any() else np.arange(len(true)) % classes
    values = {
        "label_accuracy": _overlap(labels, true, classes, whole),
        "label_accuracy.guess": _overlap(guess, true, classes, whole),
        "distance": found.distance,
        "coverage": len(found.inputs) / len(truth),
    }
    return [Reading(metric=metric, value=float(value), setting=case.setting) for metric, value in values.items()]


def _overlap(labels: IntArray, truth: IntArray, classes: int, whole: int) -> float:
    """The share of labels that are right, as multisets; of texts, labels are their next tokens.

    Of as many as were named: an attack that rebuilds a part of a batch names a part of its labels. Of texts, whose
    number of tokens is a guess as well, of the more of both.
    """
    counts = (np.bincount(some, minlength=classes) for some in (labels, truth))
    return float(np.minimum(*counts).sum() / max(len(labels), whole, 1))
