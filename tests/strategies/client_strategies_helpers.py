"""What tests of client strategies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.strategies._rule import Arrays, Round

CURVATURE = np.array([0.5, 1.0, 3.0, 2.0])


CENTRE = np.array([-2.0, 1.0, 4.0, 0.0])


def slope_of(k: int, params: Params) -> Params:
    return {"w": CURVATURE[k] * (params["w"] - CENTRE[k])}


STEPS = np.array([9, 2, 5, 3])


def trained(
    strategy: Any,
    rounds: int,
    lr: float = 0.05,
    who: Callable[[int], Sequence[int]] = lambda round_number: range(4),
    steps: Any = STEPS,
    sizes: Sequence[float] = (1, 1, 1, 1),
) -> tuple[float, Arrays]:
    """The real `sgd` client on these losses, and the rule, in float64."""
    client = Sgd(lr=lr)
    model = {"w": torch.zeros((1, 1), dtype=torch.float64)}
    state = strategy.state(model, 4)
    for number in range(1, rounds + 1):
        cohort = list(who(number))
        clients = torch.tensor([cohort])
        offers, sent, rates = strategy.payload(state, clients), [], []
        for place, k in enumerate(cohort):
            before = {"w": model["w"][0]}
            offer = {name: value[0, place] for name, value in offers.items()} | {"round": torch.tensor(float(number))}
            found = client.init(before, offer, {})
            for _ in range(int(steps[k])):
                found = client.step(found, partial(slope_of, k))
            outcome = client.final(found, before)
            sent.append(outcome.sent["w"])
            rates.append(float(outcome.report.get("lr", lr)))
        present = torch.ones((1, len(cohort)), dtype=torch.bool)
        told = {
            "steps": torch.tensor([[float(steps[k]) for k in cohort]], dtype=torch.float64),
            "lr": torch.tensor([rates], dtype=torch.float64),
        }
        weights = torch.tensor([[float(sizes[k]) for k in cohort]], dtype=torch.float64)
        round_number = Round(
            number=number,
            before=model,
            sent={"w": torch.stack(sent)[None]},
            weights=weights,
            present=present,
            clients=clients,
            report=told,
        )
        model, state = strategy.rule(state, round_number)
    return float(model["w"]), state
