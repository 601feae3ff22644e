"""What tests of weighing share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.strategies.strategies_helpers import one_round


def follow(strategy: Any, rounds: list[tuple[np.ndarray, list[int]]], clients: int = 9) -> list[np.ndarray]:
    """The model after each round, from zero; updates instead of models."""
    model = torch.zeros(rounds[0][0].shape[1])
    state, after = strategy.state({"w": model[None]}, clients), []
    for number, (moves, who) in enumerate(rounds, start=1):
        sent = model.numpy() + moves
        found, state = strategy.rule(state, one_round(sent, before=model, number=number, clients=who))
        model = found["w"][0]
        after.append(model.numpy())
    return after
