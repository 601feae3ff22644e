"""What tests of priors share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.attack import GradientTarget, Reconstruction, ReconstructionAttack
from fedmem.contracts.data import Examples
from tests.lab import digits, network, parameters, target_of

POPULATION = digits().take(np.arange(1000, 1400))


def granted(rows: Examples, population: Examples | None = POPULATION) -> GradientTarget:
    model = network()
    return replace(target_of(model, parameters(model), rows), population=population)


def one(attack: ReconstructionAttack, target: GradientTarget, seed: int = 0) -> Reconstruction:
    (found,) = attack.reconstruct([target], [np.random.default_rng(seed)])
    return found
