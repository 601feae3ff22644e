"""The common part of the adaptive servers of Reddi et al. (2021): one step with a second moment of each coordinate."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ._rule import Arrays, Round, share, weighted_mean


def moments(before: Arrays, tau: float) -> Arrays:
    """First moments of zero and second moments of tau squared, as `m:` and `v:`."""
    first = {f"m:{name}": torch.zeros_like(value) for name, value in before.items()}
    return first | {f"v:{name}": torch.full_like(value, tau**2) for name, value in before.items()}


def step(
    state: Arrays,
    rnd: Round,
    *,
    eta: float,
    beta_1: float,
    tau: float,
    second: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[Arrays, Arrays]:
    """`m = beta_1 m + (1 - beta_1) d`, `v = second(v, d)`, `w = w + eta m / (sqrt(v) + tau)`, with `d` the mean update.

    No bias correction, as published, and the types of the model.
    """
    mean = weighted_mean(rnd.sent, share(rnd.weights, rnd.present))
    after: Arrays = {}
    later: Arrays = {}
    for name, before in rnd.before.items():
        update = mean[name] - before
        m = beta_1 * state[f"m:{name}"] + (1 - beta_1) * update
        v = second(state[f"v:{name}"], update)
        after[name] = before + eta * m / (v.sqrt() + tau)
        later |= {f"m:{name}": m, f"v:{name}": v}
    return after, later
