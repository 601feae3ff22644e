"""The settings that numbers depend on are the same in every process."""

from __future__ import annotations

import math

import pytest
import torch

from fedmem.engines.client_settings import client_settings
from tests.tiny import tiny


@pytest.mark.parametrize("noise", [True, False])
def test_updates_that_are_not_finite_become_zero_for_dp(noise: bool) -> None:
    noisy = {"strategy": {"kind": "dp_fedavg", "expected_cohort_size": 2}, "sampler": {"kind": "uniform", "size": 2}}
    pipeline = client_settings(tiny(**(noisy if noise else {}))).defences
    sent = pipeline.apply_defences({"w": torch.tensor([math.nan])}, {"w": torch.tensor([2.0])}, {})
    assert sent["w"].item() == pytest.approx(2.0 if noise else math.nan, nan_ok=True)


def test_defences_and_seed_are_those_of_the_scenario() -> None:
    scenario = tiny(defences=[{"kind": "clip", "norm": 1.0}], seed=7)
    settings = client_settings(scenario)
    assert (settings.defences.defences, settings.seed) == (scenario.defences, 7)
