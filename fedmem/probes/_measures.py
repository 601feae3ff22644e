"""Readings of one reconstruction attack: of each victim and control, and of the attack as a whole."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.measurement import Reading
from fedmem.contracts.probe import Context
from fedmem.errors import RunError
from fedmem.probes._cases import Case
from fedmem.probes._victims import Victim

OUT = "out"
"""The label `coin` of readings of controls."""


def check_reconstruction(case: Case, reconstruction: Reconstruction) -> Reconstruction:
    """Attacks may come from anywhere: refuse what cannot be scored."""
    if len(reconstruction.inputs) == 0 or not np.isfinite(reconstruction.inputs).all():
        raise RunError(
            f"run {case.transition.run}, round {case.transition.round}, client {case.transition.client}: the attack "
            f"on view {case.view} must return finite images, at least one. It returned {len(reconstruction.inputs)}, "
            f"{np.count_nonzero(~np.isfinite(reconstruction.inputs))} of their values not finite"
        )
    return reconstruction


def of_victim(victim: Victim) -> list[Reading]:
    """Readings of one victim or control, the telling ones first."""
    about = victim.case.labels.plus(coin=OUT if victim.control else None, owner=victim.owner, kind=victim.kind)
    among = {"identified": about.plus(gallery=victim.gallery, peers=victim.peers)}
    identification = {} if math.isnan(victim.identified) else {"identified": victim.identified}
    return [
        Reading(metric=metric, value=value, subject=str(victim.subject), labels=among.get(metric, about))
        for metric, value in {**identification, **victim.values}.items()
    ]


def of_attack(case: Case, reconstruction: Reconstruction, context: Context) -> list[Reading]:
    """Readings of the attack as a whole."""
    federation = context.federation
    truth = federation.store.targets[case.rows]
    accuracy, guess = federation.modality.label_scores(
        reconstruction.labels, truth, federation.num_classes, federation.population
    )
    values = {
        "label_accuracy": accuracy,
        "label_accuracy.guess": guess,
        "distance": reconstruction.distance,
        "coverage": len(reconstruction.inputs) / len(truth),
    }
    return [Reading(metric=metric, value=float(value), labels=case.labels) for metric, value in values.items()]
