"""Tests of `fedmem/samplers/power_of_choice.py`."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from fedmem.errors import ComponentError, ScenarioError
from fedmem.samplers.power_of_choice import PowerOfChoice
from tests.samplers.guided_helpers import SIZES, counts, known
from tests.samplers.samplers_helpers import agree
from tests.tiny import tiny

LOSS = np.array([0.9, 0.2, np.nan, 0.5])


def sets_in_proportion(weights: list[int], size: int) -> dict[tuple[int, ...], float]:
    """The probability of each set that is drawn one after the other."""
    found = dict.fromkeys(combinations(range(len(weights)), size), 0.0)
    for order in permutations(range(len(weights)), size):
        left, chance = sum(weights), 1.0
        for client in order:
            chance *= weights[client] / left
            left -= weights[client]
        found[tuple(sorted(order))] += chance
    return found


@pytest.mark.parametrize(("size", "candidates"), [(1, 2), (2, 3), (1, 3), (2, 2), (2, 4)])
def test_power_of_choice_takes_highest_losses_of_candidates(size: int, candidates: int) -> None:
    truth, blind = np.zeros(4), np.zeros(4)
    keys = np.where(np.isnan(LOSS), np.inf, LOSS)
    for drawn, chance in sets_in_proportion(SIZES, candidates).items():
        truth[sorted(drawn, key=lambda client: -keys[client])[:size]] += chance
        blind[list(drawn)] += chance * size / candidates
    found = counts(PowerOfChoice(size=size, candidates=candidates), known(last_loss=LOSS))
    assert agree(found, 4000, truth.round(12).tolist())
    assert agree(found, 4000, blind.round(12).tolist()) == (size == candidates)


def test_power_of_choice_refuses_to_choose_more_than_it_looks_at() -> None:
    with pytest.raises(ComponentError, match="use at least 5, or lower size to at most 4"):
        PowerOfChoice(size=5, candidates=4)
    with pytest.raises(ScenarioError, match=r"sampler\.candidates"):
        tiny(sampler={"kind": "power_of_choice", "size": 3, "candidates": 2}, roster="pilot")
    with pytest.raises(ComponentError, match="3 of 4 clients have rows"):
        PowerOfChoice(size=1, candidates=4).cohort(1, known([1, 0, 2, 3]), np.random.default_rng(0))
