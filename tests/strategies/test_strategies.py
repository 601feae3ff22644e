"""The robust and the accelerated strategies against naive loops, and against what would be wrong."""

from __future__ import annotations

import numpy as np

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fedavgm import FedAvgM
from fedmem.strategies.fedprox import FedProx
from tests.strategies.strategies_helpers import aggregate

# --- trimmed mean -----------------------------------------------------------------------------------------------------


# --- Krum -------------------------------------------------------------------------------------------------------------


# --- momentum and proximal averaging ----------------------------------------------------------------------------------


def test_fedavgm_and_fedprox_without_effect_equal_fedavg() -> None:
    sent = np.random.default_rng(4).normal(size=(3, 50))
    mean = aggregate(FedAvg(), sent, sizes=[3, 7, 11])
    assert np.array_equal(aggregate(FedAvgM(momentum=0.0), sent, sizes=[3, 7, 11]), mean)
    assert np.array_equal(aggregate(FedProx(mu=0.0), sent, sizes=[3, 7, 11]), mean)
    assert np.array_equal(aggregate(FedProx(mu=5.0), sent, sizes=[3, 7, 11]), mean)
