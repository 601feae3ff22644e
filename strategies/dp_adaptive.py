"""Federated averaging with differential privacy of clients, at a clipping norm that follows a quantile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from ._private import add_canaries, add_noisy_step, clipped_sum, noise_like, state_release
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class DpAdaptive(ServerRule):
    """`dp_fedavg` whose clipping norm S approaches the `quantile` of the norms of updates (Andrew et al., 2021).

    Each round publishes two noisy sums. One is of the clipped updates, the other of b_k - 1/2. The bit b_k is 1 if the
    norm of client k is at most S, else 0. Then `S = S exp(-rate (b - quantile))`, where b is the noisy share of ones. S
    therefore shrinks where too many norms are below it. `noise_multiplier` z is that of both sums together. The updates
    therefore get a little more, `z_d = (z^-2 - (2 bit_noise)^-2)^(-1/2)`.

    Guarantees:

    - updates are clipped, bits compared and noise scaled by one S, that of the round before. S changes afterwards;
    - a client that sends nothing moves the sum of bits by 1/2, to which `zero_out` and `add_remove` refer. A client
      whose update is zero has the bit 1, which is 1 away from the bit of a long update. This difference is covered by
      `replace` alone;
    - the other guarantees are those of `dp_fedavg`, with equal weights. In a round without clients S moves by noise
      alone;
    - the bit of a canary client is `quantile` itself, so that S follows the real clients.

    Fields:
        initial_clip: S in the first round; too small is better than too large, since S moves fast.
        quantile: Share of the updates that should not be clipped.
        rate: How fast S moves: at most by the factor exp(rate) or so in a round.
        noise_multiplier: The noise multiplier z of updates and bits together; null finds it for the scenario's
            `privacy.target_epsilon`.
        bit_noise: Standard deviation of the noise on the sum of bits, more than z / 2. With null it is the larger of
            `expected_cohort_size` / 20, as the authors choose, and 2 z, which costs the updates 3 % more noise.
        expected_cohort_size: The divisor of noisy sums: the number of clients expected in a round.
        canary_clients: Further clients of random direction, for an audit by the probe `canary_clients`.

    >>> round(noise_of_updates(DpAdaptive(noise_multiplier=1.0, bit_noise=1.0)), 3)
    1.155

    Reference: Andrew et al. (2021), differentially private learning with adaptive clipping.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "client"
    noisy: ClassVar[bool] = True

    initial_clip: Annotated[float, Gt(0)] = 0.1
    quantile: Annotated[float, Ge(0), Le(1)] = 0.5
    rate: Annotated[float, Gt(0)] = 0.2
    noise_multiplier: Annotated[float, Ge(0)] | None = 1.0
    bit_noise: Annotated[float, Gt(0)] | None = None
    expected_cohort_size: Annotated[float, Gt(0)] = 10.0
    canary_clients: Annotated[int, Ge(0), "identity_neutral"] = 0

    def __post_init__(self) -> None:
        z, bits = self.noise_multiplier, self.bit_noise
        if z is not None and bits is not None and 2 * bits <= z:
            raise ValueError(
                f"bit_noise {bits} leaves nothing of a noise_multiplier of {z} for the updates; "
                f"raise bit_noise above {z / 2:g}, or leave it out"
            )

    def release_statement(self, number: int) -> dict[str, float]:
        """The release of a round, as in `_private.state_release`; the clip is known in the first round alone."""
        return state_release(
            self.initial_clip if number == 1 else math.nan, noise_of_updates(self), self.expected_cohort_size
        )

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """The clipping norm of each run."""
        runs = len(next(iter(before.values())))
        return {"clip": torch.full((runs,), self.initial_clip, dtype=torch.float64)}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One noisy step at the clipping norm that was; then the next clipping norm."""
        clip = state["clip"]
        total, lengths, sound = clipped_sum(rnd, clip, torch.ones_like(rnd.weights))
        total, num_canaries = add_canaries(total, clip, rnd, self.canary_clients, "dp_adaptive", clipped_sum)
        noise = noise_like({**total, "": clip}, rnd)
        bits = torch.where(sound.present, (lengths <= clip[:, None]).double() - 0.5, torch.zeros_like(lengths))
        scale = noise_of_bits(self) if self.noise_multiplier else 0.0
        bits_of_all = bits.sum(dim=1) + num_canaries * (self.quantile - 0.5)
        share_below = (bits_of_all + scale * noise[""]) / self.expected_cohort_size + 0.5
        after = add_noisy_step(rnd.before, total, noise, noise_of_updates(self) * clip, self.expected_cohort_size)
        return after, {"clip": clip * (-self.rate * (share_below - self.quantile)).exp()}


def noise_of_bits(strategy: DpAdaptive) -> float:
    """The standard deviation of the noise on the sum of bits."""
    z, bits = strategy.noise_multiplier, strategy.bit_noise
    assert z is not None, "the scenario finds it before training"
    return bits if bits is not None else max(strategy.expected_cohort_size / 20, 2 * z)


def noise_of_updates(strategy: DpAdaptive) -> float:
    """z_d, the noise multiplier of the updates."""
    z, bits = strategy.noise_multiplier, noise_of_bits(strategy)
    return (z**-2 - (2 * bits) ** -2) ** -0.5 if z else 0.0
