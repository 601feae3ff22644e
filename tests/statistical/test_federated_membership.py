"""The orders that docs/federated-membership.md reports, with another seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

import fedmem
from fedmem.attacks.average_signal import AverageSignal
from fedmem.attacks.confidence_series import ConfidenceSeries
from fedmem.attacks.fedmia import FedMia
from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.attack import MembershipAttack
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.estimators.membership import Membership
from fedmem.estimators.source_inference import SourceInference
from fedmem.results.read import read_bank

pytestmark = pytest.mark.slow

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "federated_membership.yaml"


@cache
def at_the_owner() -> View:
    """The summary of the shipped scenario with another seed and fewer runs."""
    estimators = "estimators=[{kind: membership, attack: {kind: fedmia}}]"
    scenario = fedmem.load_scenario(SCENARIO, ["seed=3", "runs=16", estimators])
    bank = read_bank(fedmem.run(scenario, out=mkdtemp()))
    every = views(bank, permute_coins(bank.audit, 99, np.random.default_rng(0)))
    return next(view for view in every if (view.round, view.place) == (None, "owner"))


def area(attack: MembershipAttack, kind: str) -> float:
    found = Membership(attack=attack).estimate(at_the_owner())
    return next(e.value for e in found if (e.metric, e.kind) == ("auc", kind))


def source(metric: str, kind: str) -> Estimate:
    found = SourceInference().estimate(at_the_owner())
    return next(
        e
        for e in found
        if (e.metric, e.kind, e.labels.get("top")) == (metric, kind, 1) and e.labels.get("rule") in (None, "loss")
    )


def test_alignment_beats_the_loss_for_wrong_labels() -> None:
    alignment = AverageSignal(signal="update_alignment")
    assert area(alignment, "mislabelled") > area(LossThreshold(), "mislabelled") + 0.01


def test_alignment_alone_beats_its_comparison_with_other_clients() -> None:
    alignment, second = AverageSignal(signal="update_alignment"), FedMia(signal="update_alignment")
    for kind in ("random_pattern", "mislabelled"):
        assert area(alignment, kind) > area(second, kind)


def test_the_series_of_shadow_runs_beats_the_last_margin() -> None:
    for kind in ("mislabelled", "typical"):
        assert area(ConfidenceSeries(), kind) > area(Lira(), kind)


def test_sources_of_canaries_are_named_beyond_both_controls() -> None:
    for kind in ("random_pattern", "mislabelled"):
        named = source("source_inference", kind)
        assert named.value > named.null + 0.2
        assert named.p < 0.05
        assert source("source_over_labels", kind).value > 0.2


def test_sources_of_ordinary_rows_are_those_of_their_labels() -> None:
    assert source("source_over_labels", "typical").value < 0.05
