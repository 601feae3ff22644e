"""An independent table of epsilon: each setting lies between explicit pairs and, if known, the exact value.

Lower bounds are those of `tests/neighbours.py`, which shares no code with the accountants. They are the exact epsilon,
to a few parts in a thousand, where the pair is the worst for all rounds. Where it is only the worst for one round, as
with cohorts of a fixed size, the last column says by what factor the printed value is larger at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.evidence import Participation
from fedmem.privacy import spending
from fedmem.privacy.accounting import Adjacency, Releases, Sampling, guarantee_of
from fedmem.scenario.scenario import Scenario
from fedmem.strategies.dp_adaptive import DpAdaptive, noise_of_bits, noise_of_updates
from tests.narrowing import instance
from tests.neighbours import Pair, epsilon_at_least, opposed, turned
from tests.tiny import tiny

EXACT = 1.01


def sampled(rate: float) -> Pair:
    return ((1 - rate, 0.0), (rate, 1.0)), ((1.0, 0.0),)


def replaced(rate: float) -> Pair:
    return ((1 - rate, 0.0), (rate, 1.0)), ((1 - rate, 0.0), (rate, -1.0))


def alike(rate: float) -> Pair:
    """All others of a cohort of a fixed size send what the unit may send."""
    return ((1.0, 1.0),), ((1 - rate, 1.0), (rate, 0.0))


def across(rate: float) -> Pair:
    """All others send -1, and the unit 1, or -1 as they do."""
    return ((1 - rate, -1.0), (rate, 1.0)), ((1.0, -1.0),)


def pairs(sampling: str, adjacency: str, rate: float) -> list[Pair]:
    """Explicit neighbours; each is looked at in both directions."""
    if sampling == "fixed_size":
        return [across(rate)] if adjacency == "replace" else [opposed(rate), alike(rate)]
    if adjacency == "replace":
        return [replaced(rate)]
    return [sampled(rate)]


def truth(neighbours: Sequence[Pair], noise: float, count: int, delta: float, printed: float) -> float:
    """The largest epsilon that explicit pairs have, from below by at most three parts in a thousand."""
    interval = min(1e-3, 6e-3 * max(printed, 0.05) / count)
    both = [pair for one in neighbours for pair in (one, turned(one))]
    return max(epsilon_at_least([(pair, noise, count)], delta, interval) for pair in both)


# sampling, adjacency, rate, releases, noise multiplier, delta, and by what factor the printed value is at most larger
TABLE = [
    ("everyone", "add_remove", 1.0, 1, 1.0, 1e-5, EXACT),
    ("everyone", "add_remove", 1.0, 20, 2.0, 1e-5, EXACT),
    ("everyone", "zero_out", 1.0, 50, 5.0, 1e-6, EXACT),
    ("everyone", "replace", 1.0, 1, 1.0, 1e-5, EXACT),
    ("everyone", "replace", 1.0, 20, 8.0, 1e-5, EXACT),
    ("tree", "add_remove", 1.0, 28, 6.0, 1e-5, EXACT),
    ("tree", "zero_out", 1.0, 5, 1.0, 1e-5, EXACT),
    ("tree", "replace", 1.0, 36, 12.0, 1e-5, EXACT),
    ("poisson", "add_remove", 0.1, 1, 1.0, 1e-5, EXACT),
    ("poisson", "add_remove", 0.1, 50, 1.0, 1e-5, EXACT),
    ("poisson", "add_remove", 0.02, 100, 1.0, 1e-5, EXACT),
    ("poisson", "add_remove", 0.05, 200, 0.8, 1e-5, EXACT),
    ("poisson", "add_remove", 0.5, 20, 1.0, 1e-5, EXACT),
    ("poisson", "add_remove", 0.9, 10, 2.0, 1e-6, EXACT),
    ("poisson", "add_remove", 0.01, 10, 0.5, 1e-5, EXACT),
    ("poisson", "add_remove", 0.5, 60, 12.0, 1e-4, EXACT),
    ("poisson", "add_remove", 0.3, 5, 0.4, 1e-5, EXACT),
    ("poisson", "zero_out", 0.1, 50, 1.0, 1e-5, EXACT),
    ("poisson", "zero_out", 0.2424, 40, 4.0, 1e-5, EXACT),
    ("poisson", "replace", 0.1, 1, 1.0, 1e-5, EXACT),
    ("poisson", "replace", 0.1, 50, 1.0, 1e-5, EXACT),
    ("poisson", "replace", 0.02, 100, 1.0, 1e-5, EXACT),
    ("poisson", "replace", 0.05, 200, 0.8, 1e-5, EXACT),
    ("poisson", "replace", 0.5, 20, 1.0, 1e-5, EXACT),
    ("poisson", "replace", 0.2424, 40, 4.0, 1e-5, EXACT),
    ("poisson", "replace", 0.5, 20, 6.0, 1e-6, EXACT),
    ("poisson", "replace", 0.01, 10, 0.5, 1e-5, EXACT),
    ("fixed_size", "zero_out", 0.1, 1, 1.0, 1e-5, EXACT),
    ("fixed_size", "zero_out", 0.01, 1, 1.0, 1e-5, EXACT),
    ("fixed_size", "zero_out", 0.5, 1, 3.0, 1e-6, EXACT),
    ("fixed_size", "zero_out", 0.1, 10, 1.0, 1e-5, 1.02),
    ("fixed_size", "zero_out", 0.1, 50, 1.0, 1e-5, 1.04),
    ("fixed_size", "zero_out", 0.02, 100, 1.0, 1e-5, 1.02),
    ("fixed_size", "zero_out", 0.05, 200, 0.8, 1e-5, 1.04),
    ("fixed_size", "zero_out", 0.02, 50, 1.518, 1e-5, 1.02),
    ("fixed_size", "zero_out", 0.5, 20, 2.0, 1e-5, 1.06),
    ("fixed_size", "zero_out", 1.0, 20, 2.0, 1e-5, EXACT),
    ("fixed_size", "replace", 0.1, 1, 1.0, 1e-5, EXACT),
    ("fixed_size", "replace", 0.01, 1, 1.0, 1e-5, EXACT),
    ("fixed_size", "replace", 0.1, 10, 1.0, 1e-5, 1.03),
    ("fixed_size", "replace", 0.1, 50, 1.0, 1e-5, 1.08),
    ("fixed_size", "replace", 0.02, 100, 1.0, 1e-5, 1.06),
    ("fixed_size", "replace", 0.5, 20, 4.0, 1e-5, 1.08),
    ("fixed_size", "replace", 1.0, 10, 4.0, 1e-5, EXACT),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "adjacency", "rate", "count", "noise", "delta", "factor"), TABLE)
def test_printed_epsilon_is_between_pairs_and_the_exact_value(
    sampling: Sampling, adjacency: Adjacency, rate: float, count: int, noise: float, delta: float, factor: float
) -> None:
    printed = guarantee_of(
        Releases(
            noise_multiplier=noise,
            sampling=sampling,
            rate=rate,
            count=count,
            delta=delta,
            unit="client",
            adjacency=adjacency,
        )
    ).epsilon
    least = truth(pairs(sampling, adjacency, rate), noise, count, delta, printed)
    assert least <= printed <= factor * least


def epsilon_of(**changes: Any) -> tuple[Scenario, float]:
    """What a scenario of five clients and four rounds says at its end, of its strategy or of its clients."""
    scenario = tiny(**{"injections": [], **changes})
    (one,) = spending.of_scenario(scenario)
    return scenario, guarantee_of(one.releases).epsilon


UNIFORM, POISSON, EVERYONE = {"kind": "uniform", "size": 2}, {"kind": "poisson", "rate": 0.4}, {"kind": "everyone"}


@pytest.mark.parametrize(
    ("sampler", "adjacency", "cohort", "neighbours", "factor"),
    [
        (POISSON, None, 2.0, [sampled(0.4)], EXACT),
        (POISSON, "zero_out", 2.0, [sampled(0.4)], EXACT),
        (POISSON, "replace", 2.0, [replaced(0.4)], EXACT),
        (UNIFORM, None, 2.0, [opposed(0.4), alike(0.4)], 1.03),
        (UNIFORM, "replace", 2.0, [across(0.4)], 1.06),
        (EVERYONE, None, 5.0, [sampled(1.0)], EXACT),
        (EVERYONE, "replace", 5.0, [replaced(1.0)], EXACT),
    ],
)
@pytest.mark.parametrize("kind", ["dp_fedavg", "dp_adaptive"])
def test_strategies_print_what_explicit_pairs_have(
    kind: str,
    sampler: dict[str, Any],
    adjacency: str | None,
    cohort: float,
    neighbours: list[Pair],
    factor: float,
) -> None:
    """Of `dp_adaptive` one client moves updates by a clip and bits by a half, each with noise of its own."""
    strategy = {"kind": kind, "noise_multiplier": 1.5, "expected_cohort_size": cohort}
    chosen = {} if adjacency is None else {"privacy": {"adjacency": adjacency}}
    scenario, printed = epsilon_of(sampler=sampler, strategy=strategy, **chosen)
    noise = 1.5
    if kind == "dp_adaptive":
        adaptive = instance(scenario.strategy, DpAdaptive)
        noise = (noise_of_updates(adaptive) ** -2 + (0.5 / noise_of_bits(adaptive)) ** 2) ** -0.5
    least = truth(neighbours, noise, scenario.rounds, 1e-5, printed)
    assert least <= printed <= factor * least


def nodes_moved(rounds: int, turns: Sequence[int]) -> int:
    """By how many clips, squared, a client moves the nodes of a binary tree over rounds, one node at a time."""
    return sum(
        sum(start <= turn < start + size for turn in turns) ** 2
        for size in (2**level for level in range(rounds.bit_length()))
        for start in range(1, rounds - size + 2, size)
    )


def test_a_tree_prints_what_the_busiest_client_has() -> None:
    strategy = {"kind": "dp_ftrl", "noise_multiplier": 4.0, "expected_cohort_size": 5.0}
    scenario, printed = epsilon_of(sampler=EVERYONE, strategy=strategy)
    moved = math.sqrt(nodes_moved(scenario.rounds, range(1, scenario.rounds + 1)))
    least = truth([(((1.0, moved),), ((1.0, 0.0),))], 4.0, 1, 1e-5, printed)
    assert least <= printed <= EXACT * least


def test_noise_at_clients_prints_what_other_data_have() -> None:
    defences = [{"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 6.0, "norm": 0.5}]
    scenario, printed = epsilon_of(defences=defences)
    # noise of standard deviation 3 on what is clipped to a half
    least = truth([replaced(1.0)], 6.0, scenario.rounds, 1e-5, printed)
    assert least <= printed <= EXACT * least


@pytest.mark.parametrize(("adjacency", "neighbours"), [(None, sampled(0.4)), ("replace", replaced(0.4))])
def test_records_print_what_explicit_batches_have(
    adjacency: str | None,
    neighbours: Pair,
) -> None:
    """A record is in each of two batches a round with probability 8 / 20; who takes part is known."""
    client = {"kind": "dp_sgd", "batch_size": 8, "steps": 2, "noise_multiplier": 2.0}
    chosen = {} if adjacency is None else {"privacy": {"adjacency": adjacency}}
    scenario = tiny(client=client, **chosen)
    there = [
        Participation(run=0, round=round_number, client=0, num_examples=20, failed=False) for round_number in (1, 3, 4)
    ]
    bank: Any = SimpleNamespace(participation=there)
    found = spending.of_records(scenario, bank, scenario.rounds)
    printed = guarantee_of(found[0].releases).epsilon
    least = truth([neighbours], 2.0, 6, scenario.privacy.delta, printed)
    assert least <= printed <= EXACT * least


def test_table_rejects_a_bound_that_ignores_replacement() -> None:
    """The bound that was printed once: Wang, Balle and Kasiviswanathan (2019) at z instead of half of it."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation, SampledWithoutReplacementDpEvent
    from dp_accounting.rdp import RdpAccountant

    for rate, count in [(0.1, 1), (0.1, 50), (0.02, 100)]:
        size = 10**6
        event = SampledWithoutReplacementDpEvent(size, round(rate * size), GaussianDpEvent(1.0))
        accountant = RdpAccountant(np.linspace(1.5, 30, 58).tolist(), NeighboringRelation.REPLACE_ONE)
        false = accountant.compose(event, count).get_epsilon(1e-5)
        assert truth([opposed(rate)], 1.0, count, 1e-5, false) > false
