"""Federated averaging with differential privacy of clients, at a fixed clipping norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt

from ._private import add_canaries, add_noisy_step, clipped_sum, noise_like, state_release
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class DpFedAvg(ServerRule):
    """The noisy sum of clipped updates over a fixed number, `w = w_0 + (sum_k a_k clip(d_k) + z S n) / cohort`.

    `d_k` is the update of client k, and `clip` shortens it to norm S where it is longer. `n` is standard normal noise,
    drawn once (McMahan et al., 2018). The noise is added by a trusted server: an observer of single updates is not
    covered.

    Guarantees:

    - one client moves the sum by at most S, whatever its data, and the divisor does not depend on which clients
      participate;
    - `a_k` is 1, or `min(rows / cap, 1)`. It is never a share of the cohort, which one client would change for all
      others;
    - a round without clients is noise like any other: no noise would reveal that the cohort was empty;
    - updates that are zero or not finite count as zero; arrays of integers stay as they are;
    - a client that drops out is not replaced: the noise stays what it was;
    - a canary client is an additional client. It sends 10 S along its direction as often as a real client participates,
      and is clipped like one. `expected_cohort_size` counts it.

    Fields:
        clip: S, the largest norm of an update, over all parameters.
        noise_multiplier: The standard deviation z of the noise divided by S; null finds it for the scenario's
            `privacy.target_epsilon`.
        expected_cohort_size: The divisor of the noisy sum: the number of clients expected in a round, or less under a
            `cap`.
        cap: Rows from which a client has the full weight; null gives all clients the same.
        canary_clients: Further clients of random direction, for an audit by the probe `canary_clients`.

    >>> start, sent = {"w": torch.zeros(1, 2)}, {"w": torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])}
    >>> present, clients = torch.ones((1, 2), dtype=torch.bool), torch.arange(2)[None]
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> after, _ = DpFedAvg(clip=1.0, noise_multiplier=0.0, expected_cohort_size=2).rule({}, round)
    >>> [f"{value:.1f}" for value in after["w"][0].tolist()]
    ['0.3', '0.4']

    Reference: McMahan et al. (2018), learning differentially private recurrent language models.
    """

    noise_covers: ClassVar[tuple[str, ...]] = ("rows",)
    unit: ClassVar[str] = "client"
    noisy: ClassVar[bool] = True

    clip: Annotated[float, Gt(0)] = 1.0
    noise_multiplier: Annotated[float, Ge(0)] | None = 1.0
    expected_cohort_size: Annotated[float, Gt(0)] = 10.0
    cap: Annotated[int, Gt(0)] | None = None
    canary_clients: Annotated[int, Ge(0), "identity_neutral"] = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where a `cap` makes them weights of at most 1."""
        return () if self.cap is None else ("rows",)

    def release_statement(self, number: int) -> dict[str, float]:
        """The release of a round, as `_private.state_release` describes it, for tests of the mechanism."""
        return state_release(self.clip, self.noise_multiplier, self.expected_cohort_size)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One noisy step."""
        assert self.noise_multiplier is not None, "the scenario finds it before training"
        weights = torch.ones_like(rnd.weights) if self.cap is None else (rnd.weights / self.cap).clamp(max=1)
        clip = torch.full((len(weights),), self.clip, dtype=torch.float64)
        total, _, _ = clipped_sum(rnd, clip, weights)
        total, _ = add_canaries(total, clip, rnd, self.canary_clients, "dp_fedavg", clipped_sum)
        noise = noise_like(total, rnd)
        return add_noisy_step(rnd.before, total, noise, self.noise_multiplier * clip, self.expected_cohort_size), state
