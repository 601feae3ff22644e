"""Tests of `fedmem/samplers/listed.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.samplers.listed import Listed
from tests.samplers.samplers_helpers import history, participation


def test_the_listed_clients_take_part_and_no_others() -> None:
    sampler = Listed(clients=(4, 0))
    took = participation(sampler, 5, 3)
    assert took.tolist() == [[True, False, False, False, True]] * 3
    np.testing.assert_array_equal(sampler.probabilities(1, history(5)), took[0])


def test_a_client_that_is_not_there_is_refused() -> None:
    with pytest.raises(ComponentError, match=r"there is no client 5.*0 to 4.*raise clients to 6"):
        Listed(clients=(0, 5)).cohort(1, history(5), np.random.default_rng(0))


def test_a_client_listed_twice_is_refused() -> None:
    with pytest.raises(ComponentError, match="client 3 is listed twice"):
        Listed(clients=(3, 1, 3))
