"""Tests of `fedmem/defences/quantise.py`."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import Params
from fedmem.defences.quantise import Quantise
from tests.defences.defences_helpers import update


def uniform(like: Params, seed: int) -> Params:
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(rng.random(tuple(v.shape), dtype=np.float32)) for name, v in like.items()}


@pytest.mark.parametrize("scale", ["max", "norm"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_levels_are_whole_and_errors_below_a_step(bits: int, scale: Any) -> None:
    given, s = update(), 2 ** (bits - 1) - 1
    ways: tuple[tuple[Literal["stochastic", "nearest"], float], ...] = (("stochastic", 1.0), ("nearest", 0.5))
    for rounding, most in ways:
        found = Quantise(bits=bits, rounding=rounding, scale=scale).apply(given, uniform(given, 3))
        for name, value in given.items():
            step = float(value.abs().max() if scale == "max" else value.double().norm()) / s
            levels = found[name].double() / step
            assert torch.allclose(levels, levels.round(), atol=1e-4)
            assert levels.abs().max() <= s + 1e-4
            assert (found[name] - value).abs().max() <= most * step * (1 + 1e-5)
            assert (found[name] * value >= 0).all()


def spread(quantise: Quantise, value: torch.Tensor, draws: int = 4000) -> torch.Tensor:
    """(draws, n) outcomes of the same update."""
    repeated = {"w": value.expand(draws, -1)}
    drawn = uniform(repeated, 4)
    return torch.vmap(quantise.apply)(repeated, drawn)["w"].double()


@pytest.mark.parametrize("scale", ["max", "norm"])
def test_stochastic_rounding_is_unbiased_with_coin_variance(scale: Any) -> None:
    value = update()["b"]
    quantise = Quantise(bits=3, scale=scale)
    found = spread(quantise, value)
    step = float(value.abs().max() if scale == "max" else value.double().norm()) / 3
    share = value.double().abs() / step % 1
    variance = step**2 * share * (1 - share)
    error = (found.mean(dim=0) - value) / (variance / len(found)).sqrt().clamp(min=1e-6)
    assert error.abs().max() < 4
    torch.testing.assert_close(found.var(dim=0), variance, rtol=0.1, atol=0.02 * step**2)


def test_nearest_rounding_is_biased_beyond_the_stochastic_bound() -> None:
    value = update()["b"]
    found = Quantise(bits=3, rounding="nearest").apply({"w": value}, {})["w"]
    step = float(value.abs().max()) / 3
    assert (found - value).abs().max() > 4 * step / 2 / np.sqrt(4000)
    torch.testing.assert_close(found, (value / step).round() * step)
