"""The common part of strategies with differential privacy: bounded contributions, and noise on their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ._geometry import broadcast_factors, drop_non_finite, norms, updates
from ._rule import Arrays, Round, weighted_mean

Clipping = Callable[[Round, torch.Tensor, torch.Tensor], tuple[Arrays, torch.Tensor, Round]]
"""`clipped_sum`, or what stands in for it."""

CANARY_LENGTH = 10.0
"""How long the update of a canary client is, in clips, before it is clipped."""


def clipped_sum(rnd: Round, clip: torch.Tensor, weights: torch.Tensor) -> tuple[Arrays, torch.Tensor, Round]:
    """Sum of w_k min(1, S / |d_k|) d_k over present clients (R, ...), the lengths |d_k| (R, K), and the round summed.

    `d_k` is the update of client k: what it sent minus what it was given. `clip` (R,) is S. `weights` (R, K) are from 0
    to 1, so that no client moves the sum by more than S. Sums are in float64. A length of zero is no problem. A client
    that sent a number that is not finite counts as absent.
    """
    rnd = drop_non_finite(rnd)
    vectors = updates(rnd)
    lengths = norms(vectors)
    # a length of zero makes this infinite, hence a factor of one
    factors = weights * (clip[:, None] / lengths).clamp(max=1)
    return weighted_mean(vectors, torch.where(rnd.present, factors, torch.zeros_like(factors))), lengths, rnd


def add_canaries(
    total: Arrays, clip: torch.Tensor, rnd: Round, canary_clients: int, strategy: str, clipped: Clipping
) -> tuple[Arrays, torch.Tensor]:
    """The sum with what canary clients add, and how many they are (R,).

    Each sends `CANARY_LENGTH` times S = `clip` (R,) along its direction. `clipped` shortens these updates as it
    shortens those of all clients, so that a missing or wrong clip makes canaries louder. Where there are no
    `canary_clients` the sum stays as it is. Errors: `ValueError` where there should be some, but nobody says where they
    point: an audit would find nothing, and that would read as safety.
    """
    if not canary_clients:
        return total, torch.zeros_like(clip)
    if rnd.canary_updates is None:
        raise ValueError(
            f"{strategy} has {canary_clients} canary clients, whose directions are drawn by a scenario; in an app "
            "of one's own write canary_clients=0"
        )
    count, start = torch.zeros_like(clip), {name: torch.zeros_like(value) for name, value in total.items()}
    for directions, present in rnd.canary_updates(total):
        canary_round = replace(
            rnd,
            before=start,
            sent={
                name: broadcast_factors(CANARY_LENGTH * clip[:, None], value) * value
                for name, value in directions.items()
            },
            weights=present.double(),
            present=present,
            clients=torch.full(present.shape, -1),
            report={},
        )
        part, _, _ = clipped(canary_round, clip, torch.ones_like(canary_round.weights))
        total = {name: value + part[name] for name, value in total.items()}
        count = count + present.sum(dim=1)
    return total, count


def state_release(clip: float, noise: float | None, divisor: float) -> dict[str, float]:
    """The release of a round as a noisy strategy states it, for tests against messages.

    `before + (sum_k a_k min(1, S / |d_k|) d_k + noise S n) / divisor`, with n standard normal. `clip` is S, or NaN
    where it is not released. `noise` is the standard deviation in units of S. `canary_length` is the length of canary
    clients' updates before clipping, in clips.

    Noise is independent of that of other rounds, unless a tree is also stated. A tree is stated by the `place` of the
    round, and by the coefficients `left:0`, ... of the nodes to the left. Its `deviation` is that of the change, and
    `new` is that of the change's new draws, both in units of a draw.
    """
    return {
        "clip": clip,
        "noise": noise or 0.0,
        "divisor": divisor,
        "canary_length": CANARY_LENGTH,
    }


def noise_like(total: Arrays, rnd: Round) -> Arrays:
    """Standard normal noise for each of these arrays (R, ...), from the generator of each run, in float64."""
    draws: dict[str, list[torch.Tensor]] = {name: [] for name in total}
    for generator in rnd.drawing:
        for name in sorted(total):
            draws[name].append(torch.as_tensor(generator.standard_normal(tuple(total[name].shape[1:]))))
    return {name: torch.stack(draws[name]) for name in total}


def add_noisy_step(before: Arrays, total: Arrays, noise: Arrays, scale: torch.Tensor, divisor: float) -> Arrays:
    """before + (total + scale noise) / divisor, with `scale` (R,), in the types of the model."""
    return {
        name: (value.double() + (total[name] + broadcast_factors(scale, noise[name]) * noise[name]) / divisor).to(
            value.dtype
        )
        for name, value in before.items()
    }
