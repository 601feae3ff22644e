"""What tests of lockstep share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import TrainedBank
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario

ONE_BY_ONE = {"executor": "one_by_one", "workers": 1}


def trained(scenario: Scenario, **how: Any) -> TrainedBank:
    return simulate(scenario, build(scenario), **how)


def same(one: Sequence[Params], other: Sequence[Params]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )
