"""Tests of `strategies/dp_adaptive.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.engines._flower import in_process
from fedmem.strategies.dp_adaptive import DpAdaptive, noise_of_bits, noise_of_updates
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.cohorts import drawn, flat, models, stacked
from tests.strategies.private_helpers import made


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def clips(strategy: DpAdaptive, lengths: Any, rounds: int) -> list[float]:
    """The clipping norm after each round in which clients send updates of these lengths."""
    before, there = made(len(lengths))
    unit = flat(models(np.random.default_rng(1), 1)[0])
    unit = unit / np.linalg.norm(unit)
    state, found = strategy.state({name: value[None] for name, value in before.items()}, 9), []
    for number in range(1, rounds + 1):
        model = {name: torch.zeros((1, *value.shape)) for name, value in before.items()}
        round_number = stacked(number, [there], model)
        sent = {}
        for name, part in zip(model, np.split(unit, [12]), strict=True):
            along = torch.tensor(np.outer(lengths, part).reshape(1, len(lengths), *before[name].shape))
            sent[name] = along.float()
        _, state = strategy.rule(state, replace(round_number, sent=sent))
        found.append(float(state["clip"]))
    return found


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_clipping_norm_finds_the_median(start: float) -> None:
    """Flower's runs away from it: with the bit of the other sense, too small a norm shrinks."""
    lengths = [0.7, 0.9, 1.0, 1.1, 1.5]
    found = clips(DpAdaptive(initial_clip=start, noise_multiplier=0.0, expected_cohort_size=5.0), lengths, 80)
    assert found[-1] == pytest.approx(1.0, rel=0.2)
    assert (found[0] > start) == (start < 1)


@pytest.mark.parametrize("quantile", [0.2, 0.8])
def test_the_clipping_norm_finds_other_quantiles(quantile: float) -> None:
    strategy = DpAdaptive(initial_clip=1.0, quantile=quantile, noise_multiplier=0.0, expected_cohort_size=9.0)
    found = clips(strategy, np.linspace(1, 9, 9), 100)
    assert found[-1] == pytest.approx(np.quantile(np.arange(1, 10), quantile, method="inverted_cdf"), rel=0.2)


def test_one_step_of_the_clipping_norm_equals_its_formula() -> None:
    """Three of five are at most S = 1, one exactly: exp(-0.2 (0.6 - 0.5))."""
    strategy = DpAdaptive(initial_clip=1.0, noise_multiplier=0.0, expected_cohort_size=5.0)
    assert clips(strategy, [0.5, 0.9, 0.999999, 2.0, 3.0], 1) == [pytest.approx(math.exp(-0.02))]


def test_updates_are_clipped_and_noised_at_the_current_norm() -> None:
    """Flower's noise has the norm of the next round, less than the clip where that shrinks."""
    before, there = made(5)
    small = there.sending([{name: value + 1e-3 for name, value in before.items()}] * 5)
    strategy = DpAdaptive(initial_clip=2.0, rate=3.0, bit_noise=1.0, expected_cohort_size=5.0)
    fixed = DpFedAvg(clip=2.0, noise_multiplier=noise_of_updates(strategy), expected_cohort_size=5.0)
    state = strategy.state({name: value[None] for name, value in before.items()}, 9)
    round_number = stacked(1, [small], {name: value[None] for name, value in before.items()})
    after, later = strategy.rule(state, round_number)
    assert float(later["clip"]) < 1.0
    # the bit is drawn first, under an empty name
    generator = drawn(0, 1)
    generator.standard_normal(())
    expected, _ = fixed.rule({}, replace(round_number, generators=lambda: (generator,)))
    assert torch.equal(after["layer.weight"], expected["layer.weight"])


@pytest.mark.parametrize(
    ("z", "bits", "cohort_size"), [(1.0, 0.6, 10.0), (1.0, None, 10.0), (1.0, None, 200.0), (4.0, None, 5.0)]
)
def test_noise_is_split_between_updates_and_bits(z: float, bits: float | None, cohort_size: float) -> None:
    strategy = DpAdaptive(noise_multiplier=z, bit_noise=bits, expected_cohort_size=cohort_size)
    together = noise_of_updates(strategy) ** -2 + (2 * noise_of_bits(strategy)) ** -2
    assert together == pytest.approx(z**-2)
    assert noise_of_updates(strategy) > z


def test_bits_that_need_all_the_noise_are_refused() -> None:
    """Flower's default of cohort / 20 refuses z = 1 for cohorts of up to 10; left out, it is raised instead."""
    with pytest.raises(ValueError, match=r"bit_noise 0.5 leaves nothing.*raise bit_noise above 0.5"):
        DpAdaptive(noise_multiplier=1.0, bit_noise=0.5)
    assert noise_of_bits(DpAdaptive(noise_multiplier=1.0, expected_cohort_size=4.0)) == 2.0
    assert noise_of_bits(DpAdaptive(noise_multiplier=1.0, expected_cohort_size=200.0)) == 10.0


def test_bits_have_noise() -> None:
    lengths = [0.5] * 4
    noisy = clips(DpAdaptive(initial_clip=1.0, expected_cohort_size=4.0), lengths, 1)[0]
    assert noisy != pytest.approx(
        clips(DpAdaptive(initial_clip=1.0, noise_multiplier=0.0, expected_cohort_size=4.0), lengths, 1)[0]
    )
