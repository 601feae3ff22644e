"""What tests of private share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.strategies.dp_adaptive import DpAdaptive
from fedmem.strategies.dp_fedavg import DpFedAvg
from fedmem.strategies.dp_ftrl import DpFtrl
from tests.cohorts import cohort, models

BOTH = [
    DpFedAvg(clip=0.5, expected_cohort_size=4.0),
    DpAdaptive(initial_clip=0.5, expected_cohort_size=4.0),
    DpFtrl(clip=0.5, expected_cohort_size=4.0),
]


both = pytest.mark.parametrize("strategy", BOTH, ids=lambda strategy: type(strategy).__name__)


def made(count: int = 5, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return models(rng, 1)[0], cohort(rng, count)
