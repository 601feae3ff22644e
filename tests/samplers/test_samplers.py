"""Inclusion probabilities are what the samplers say, and the tests would notice if they were not."""

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.sampler import Sampler
from fedmem.errors import ComponentError
from fedmem.samplers.atypical import Atypical
from fedmem.samplers.by_size import BySize
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.min_separation import MinSeparation
from fedmem.samplers.poisson import Poisson
from fedmem.samplers.uniform import Uniform
from tests.samplers.samplers_helpers import history, participation


@pytest.mark.parametrize(("sampler", "truth"), [(Uniform(size=3), 0.3), (Poisson(rate=0.3), 0.3)])
def test_every_client_takes_part_as_often_as_stated(sampler: Sampler, truth: float) -> None:
    counts = participation(sampler, 10, 3000).sum(0)
    assert min(stats.binomtest(int(count), 3000, truth).pvalue for count in counts) > 1e-3
    assert max(stats.binomtest(int(count), 3000, truth + 0.1).pvalue for count in counts) < 1e-3


# --- cyclic -----------------------------------------------------------------------------------------------------------


# --- by size ----------------------------------------------------------------------------------------------------------


# --- minimum separation -----------------------------------------------------------------------------------------------


# --- atypical ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Cyclic(size=6), BySize(size=6), Atypical(size=6), MinSeparation(size=6)])
def test_more_than_there_are_cannot_be_drawn(sampler: Sampler) -> None:
    with pytest.raises(ComponentError, match=r"sampler\.size"):
        sampler.cohort(1, history(5), np.random.default_rng(0))
