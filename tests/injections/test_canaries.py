"""Each generator of canaries draws what it states, and a flaw in it would be seen."""

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.injections.blended_patch import BlendedPatch
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.random_row import RandomRow
from fedmem.injections.unique_feature import UniqueFeature
from tests.injections.canaries_helpers import space, table


@pytest.mark.parametrize("injection", [BlendedPatch(), UniqueFeature()])
def test_patch_and_unique_feature_refuse_tables(injection: BlendedPatch | UniqueFeature) -> None:
    with pytest.raises(ComponentError, match=r"draws on images, but inputs have shape \(8,\).*random_row"):
        injection.references(1, table(), np.random.default_rng(0))


def test_random_pattern_refuses_tables_and_random_row_images() -> None:
    with pytest.raises(ComponentError, match="use random_row"):
        RandomPattern().references(1, table(), np.random.default_rng(0))
    with pytest.raises(ComponentError, match="use random_pattern"):
        RandomRow().references(1, space(1, 8, 8), np.random.default_rng(0))
