"""Each injection draws from the distribution that it states."""

import numpy as np
import pytest

from fedmem.contracts.reserve import Reserve
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from tests.injections.injections_helpers import CLASSES, SPACE, rows, skewed


@pytest.mark.parametrize(
    "injection",
    [
        RandomPattern(per_client=3, copies=2, values="uniform"),
        Typical(per_client=3, copies=2),
        Mislabelled(per_client=3, copies=2),
    ],
)
def test_every_client_holds_its_number_of_examples(injection: RandomPattern | Typical | Mislabelled) -> None:
    injected = injection.plan(skewed(8), Reserve(rows(np.arange(80) % CLASSES)), SPACE, np.random.default_rng(0))
    assert injected.owner.tolist() == [0, 0, 0, 1, 1, 1]
    assert injected.copies.tolist() == [2] * 6
