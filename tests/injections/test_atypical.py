"""Each atypical kind changes rows as it states, against closed forms and naive loops."""

from typing import Any

import numpy as np
import pytest

from fedmem.injections.adversarial import Adversarial
from fedmem.injections.corrupted import Corrupted
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.injections.out_of_distribution import OutOfDistribution
from tests.injections.atypical_helpers import clean, plan


@pytest.mark.parametrize(
    "injection", [Corrupted(), NearDuplicate(), Adversarial(), OutOfDistribution(source="negatives")]
)
def test_labels_stay_true_and_have_the_shares_of_the_owner(injection: Any) -> None:
    injected = plan(injection)
    np.testing.assert_array_equal(injected.examples.targets, clean(injected).targets)
