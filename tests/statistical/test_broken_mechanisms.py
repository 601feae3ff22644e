"""Audits of mechanisms that promise more than they do raise the alarm; of one that keeps its promise they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.contracts.estimator import View
from fedmem.estimators.audit import Audit
from fedmem.privacy.accounting import Releases
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.strategies._rule import Round
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.banks import make_view
from tests.labelling import labels

pytestmark = pytest.mark.statistical

CANARIES, REPEATS = 160, 100
PRESENT = AuditedUnit(unit="record", adjacency="add_remove")


def scores(strategy: DpFedAvg, rounds: int, length: float, repeats: int, seed: int) -> View:
    """What the sums of all rounds show of canaries that each push one coordinate, every repetition a run.

    `length` is how long an update is in clips, before it is clipped.
    """
    rng = np.random.default_rng(seed)
    is_in = rng.random((repeats, CANARIES)) < 0.5
    present = torch.from_numpy(is_in)
    sent = {"w": length * strategy.clip * torch.eye(CANARIES, dtype=torch.float64).expand(repeats, -1, -1)}
    before = {"w": torch.zeros((repeats, CANARIES), dtype=torch.float64)}
    clients = torch.where(present, torch.arange(CANARIES), -1)
    generators = tuple(np.random.default_rng([seed, run]) for run in range(repeats))
    found = np.zeros((repeats, CANARIES))
    for number in range(1, rounds + 1):
        round_number = Round(
            number=number,
            before=before,
            sent=sent,
            weights=torch.ones((repeats, CANARIES), dtype=torch.float64),
            present=present,
            clients=clients,
            generators=lambda: generators,
        )
        after, _ = strategy.rule({}, round_number)
        found += after["w"].numpy()
    return replace(make_view(found, is_in, kind=["canary"] * CANARIES), exclusion="remove")


def alarms(view: View, noise: float, counted: int) -> float:
    """The share of repetitions in which the bound is above what so many releases promise."""
    releases = Releases(noise_multiplier=noise, sampling="everyone", count=counted, delta=1e-5, unit="record")
    promised = permitted_guarantee(PRESENT, releases).epsilon
    raised = []
    for run in range(view.audit.runs):
        found = {reading.metric: reading for _, reading in Audit(run=run, guesses=0.25).tests(view)}
        assert found["epsilon_hat"].labels.has(labels("unit=record adjacency=add_remove"))
        raised.append(found["epsilon_hat"].value > promised)
    return float(np.mean(raised))


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (4.0, 1), (8.0, 12)])
def test_honest_mechanism_raises_no_alarm(noise: float, rounds: int) -> None:
    """In at least 95 of 100 repetitions; and the audit finds something, so that it could have raised an alarm."""
    honest = DpFedAvg(clip=2.0, noise_multiplier=noise, expected_cohort_size=CANARIES / 2)
    view = scores(honest, rounds, 10.0, REPEATS, 0)
    assert alarms(view, noise, rounds) <= 0.05
    if noise == 1.0:
        assert alarms(view, 100 * noise, rounds) > 0.9


def test_a_tenth_of_the_noise_is_found() -> None:
    broken = DpFedAvg(clip=2.0, noise_multiplier=0.4, expected_cohort_size=CANARIES / 2)
    assert alarms(scores(broken, 1, 10.0, 20, 1), 4.0, 1) == 1


def test_a_clip_that_is_not_applied_is_found() -> None:
    """Updates ten clips long; the noise is that of one clip."""
    clip, length, noise = 2.0, 10.0, 4.0
    broken = DpFedAvg(clip=1e6, noise_multiplier=noise * clip / 1e6, expected_cohort_size=CANARIES / 2)
    assert alarms(scores(broken, 1, length * clip / 1e6, 20, 2), noise, 1) == 1


def test_accountant_that_restarts_each_round_raises_an_alarm() -> None:
    """Forty rounds are released and one is accounted for; with all of them counted there is no alarm."""
    honest = DpFedAvg(clip=2.0, noise_multiplier=4.0, expected_cohort_size=CANARIES / 2)
    view = scores(honest, 40, 10.0, 20, 4)
    assert alarms(view, 4.0, 1) >= 0.95
    assert alarms(view, 4.0, 40) == 0
