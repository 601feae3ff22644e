"""Tests of `fedmem/attacks/_population.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.nearest_mean import NearestMean
from fedmem.attacks.training_mean import TrainingMean
from fedmem.contracts.attack import ReconstructionAttack
from fedmem.errors import ComponentError
from tests.attacks.priors_helpers import POPULATION, granted, one
from tests.lab import digits


@pytest.mark.parametrize("attack", [TrainingMean(), NearestMean()])
def test_attack_without_population_is_an_error_with_a_fix(attack: ReconstructionAttack) -> None:
    assert attack.knows == ("population",)
    rows = digits().take(np.arange(1))
    for population in (None, POPULATION.take(np.arange(0))):
        with pytest.raises(ComponentError, match=r"there are none\. In a scenario raise `population`"):
            one(attack, granted(rows, population))
    with pytest.raises(ComponentError):
        one(attack, granted(rows).grant(("labels",)))
