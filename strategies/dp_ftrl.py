"""Following the regularised leader with differential privacy of clients, without relying on sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt

from ._geometry import broadcast_factors
from ._private import add_canaries, clipped_sum, noise_like, state_release
from ._rule import Arrays, Round, ServerRule
from ._tree import change_of, climb_tree, levels_of, moved_by_one, top, zeros_of


@dataclass(frozen=True, kw_only=True)
class DpFtrl(ServerRule):
    """Prefix sums of clipped updates with the noise of a tree, `w_t = w_0 + eta (S_t + z S N_t) / cohort`.

    `S_t` is the sum of all clipped updates of rounds 1 to t. `N_t` is the sum of the noise of the nodes that cover
    these rounds in a binary tree. Their number is that of the ones of t in binary. So after T rounds the model has the
    noise of at most log2(T) + 1 draws. Noise that is new in each round would have added up to T draws (Kairouz et al.,
    2021).

    Each round adds `r_t = (sum_k a_k clip(d_k) + z S (N_t - N_(t-1))) / cohort` to the velocity, `v = momentum v + r`,
    and `w = w + eta v`. Without momentum, this equals the formula above.

    Its privacy guarantee needs no sampling. It counts the participations of a client and their minimum separation,
    which the sampler has to guarantee. A participation is in one node of each level, and several may be in one node.
    Together, a client's participations move the nodes by the square root of `squared_sensitivity(...)` clips.

    Guarantees:

    - each node is drawn once, and prefixes that share it share its noise;
    - one client moves the sum of a round by at most S; `a_k` is 1, or `min(rows / cap, 1)`;
    - a round without clients is a leaf like any other. Updates that are not finite count as zero. Arrays of integers
      stay as they are;
    - momentum and `server_lr` use what is noisy already, and cost no privacy;
    - a canary client is an additional client. It sends 10 S along its direction when it participates, and is clipped
      like a real client. `expected_cohort_size` counts it.

    Fields:
        clip: S, the largest norm of an update, over all parameters.
        noise_multiplier: The standard deviation z of the noise of a node divided by S; null finds it for the scenario's
            `privacy.target_epsilon`.
        expected_cohort_size: The divisor of the noisy sum: the number of clients that participate in a round, or less
            under a `cap`.
        cap: Rows from which a client has the full weight; null gives all clients the same.
        server_lr: The server learning rate eta.
        momentum: Share of the velocity carried to the next round.
        honaker: Estimate each node from its own noisy sum and from those below it. This nearly halves the variance
            (Honaker, 2015) and costs no privacy; false takes the node's own sum alone.
        restart: Rounds after which a new tree is begun, on top of what the old one released; null for one tree.
        canary_clients: Further clients of random direction, for an audit by the probe `canary_clients`.

    >>> ftrl = DpFtrl()
    >>> # one participation after 5 rounds, four after 20
    >>> [ftrl.squared_sensitivity(rounds, min_separation=5) for rounds in (1, 5, 20)]
    [1, 3, 36]

    Reference: Kairouz et al. (2021), practical and private (deep) learning without sampling or shuffling; Honaker
    (2015), efficient use of differentially private binary trees.
    """

    noise_covers: ClassVar[tuple[str, ...]] = ("rows",)
    unit: ClassVar[str] = "client"
    noisy: ClassVar[bool] = True

    clip: Annotated[float, Gt(0)] = 1.0
    noise_multiplier: Annotated[float, Ge(0)] | None = 1.0
    expected_cohort_size: Annotated[float, Gt(0)] = 10.0
    cap: Annotated[int, Gt(0)] | None = None
    server_lr: Annotated[float, Gt(0)] = 1.0
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    honaker: bool = True
    restart: Annotated[int, Gt(0)] | None = None
    canary_clients: Annotated[int, Ge(0), "identity_neutral"] = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where a `cap` makes them weights of at most 1."""
        return () if self.cap is None else ("rows",)

    def squared_sensitivity(self, rounds: int, min_separation: int, participations: int | None = None) -> int:
        """By how many clips, squared, one client moves all that is released; see `_tree.moved_by_one`."""
        return moved_by_one(rounds, min_separation, participations, self.restart)

    def release_statement(self, number: int) -> dict[str, float] | None:
        """The release of a round, as `_private.state_release` says; None with momentum, which mixes rounds."""
        if self.momentum and number > 1:
            return None
        place = (number - 1) % self.restart + 1 if self.restart else number
        variance, fresh_variance, coefficients = change_of(place, own_noise_only=not self.honaker)
        tree = {"place": float(place), "deviation": variance**0.5, "new": fresh_variance**0.5}
        tree |= {f"left:{level}": value for level, value in enumerate(coefficients)}
        return (
            state_release(
                self.clip, (self.noise_multiplier or 0.0) * variance**0.5, self.expected_cohort_size / self.server_lr
            )
            | tree
        )

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """Rounds so far, nodes by level, and the velocity where there is one."""
        runs = len(next(iter(before.values())))
        arrays = {"rounds": torch.zeros(runs, dtype=torch.float64)}
        arrays |= {f"level:0:{name}": value for name, value in zeros_of(before).items()}
        if self.momentum:
            arrays |= {f"velocity:{name}": value for name, value in zeros_of(before).items()}
        return arrays

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One step along the sum of this round and what the noise of the prefix changed by."""
        assert self.noise_multiplier is not None, "the scenario finds it before training"
        # a rule that is noisy is applied in every round of every run
        number = int(state["rounds"][0]) + 1
        place = (number - 1) % self.restart + 1 if self.restart else number
        highest, levels = top(place), levels_of(state)
        weights = torch.ones_like(rnd.weights) if self.cap is None else (rnd.weights / self.cap).clamp(max=1)
        clip = torch.full((len(weights),), self.clip, dtype=torch.float64)
        total, _, _ = clipped_sum(rnd, clip, weights)
        total, _ = add_canaries(total, clip, rnd, self.canary_clients, "dp_ftrl", clipped_sum)
        below = levels[:highest]
        fresh_levels = range(highest + 1) if self.honaker else (highest,)
        # all at once, since a generator starts again at every request
        fresh = noise_like({f"{level}:{name}": value for level in fresh_levels for name, value in total.items()}, rnd)
        node = climb_tree(fresh, below, own_noise_only=not self.honaker)
        later = {"rounds": state["rounds"] + 1}
        after: Arrays = {}
        for name, value in rnd.before.items():
            change = node[name]
            for left_node in below:
                change = change - left_node[name]
            step = (
                total[name] + broadcast_factors(self.noise_multiplier * clip, change) * change
            ) / self.expected_cohort_size
            if self.momentum:
                step = self.momentum * state[f"velocity:{name}"] + step
                later[f"velocity:{name}"] = step
            after[name] = (value.double() + self.server_lr * step).to(value.dtype)
        upper_levels = levels[highest + 1 :] if place > 1 else []
        nodes = [zeros_of(rnd.before)] * highest + [node] + upper_levels
        later |= {
            f"level:{level}:{name}": value for level, tree_node in enumerate(nodes) for name, value in tree_node.items()
        }
        return after, later
